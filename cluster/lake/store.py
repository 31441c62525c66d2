"""The lake as jobs and commands see it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from cluster.lake.bundles import bundle_folder, parse_reference, put_bundle
from cluster.lake.commit import TableVersions, read_versions, states_written
from cluster.lake.committing import abandon, close, commit_run
from cluster.lake.copies import Copies
from cluster.lake.layout import LAKE_FILE, new_run_id, open_prefix, plan_path
from cluster.lake.leases import Lease, hold, require_atomic
from cluster.lake.reader import LakeReader
from cluster.lake.rivals import Rivals
from cluster.lake.runs import LakeRun, write_plan
from cluster.sources import head_source, list_batches, list_source, read_source
from cluster.storage import Storage, open_storage, peek_storage
from schemas.bundle import digest
from schemas.errors import BundleError, LakeError
from schemas.plan import Plan
from schemas.protocols import Report, Run, SourceFile, Verdict
from schemas.reasons import RunState
from schemas.tables import FORMAT_VERSION

_REMEMBERED_BYTES = 4 * 2**20
"""An answer larger than this is not kept for a second time: planning must not fill the memory."""
_ALL_REMEMBERED_BYTES = 16 * _REMEMBERED_BYTES
"""All answers that are kept; the oldest go first."""


class LakeStore:
    """A lake that is open for work. Implements `schemas.protocols.Store`."""

    def __init__(self, storage: Storage, night: date | None = None) -> None:
        """``night`` is the night that runs belong to; today in UTC when not given."""
        self.storage = storage
        self._night = night
        self._snapshot: LakeReader | None = None
        self._answers: dict[str, pa.Table] = {}
        self._digests: dict[str, tuple[SourceFile, str]] = {}
        self._rivals, self._copies = Rivals(), Copies(storage)
        self._leases: dict[tuple[str, ...], tuple[Lease, TableVersions]] = {}

    @staticmethod
    def open(root: str, *, create: bool = False, night: date | None = None) -> "LakeStore":
        """Open a lake; ``create`` makes an empty one where there is none.

        ``night`` is the night that runs belong to; today in UTC when not given.

        Raises:
            LakeError: if there is no lake, or one of another format, or the store can't make
                objects atomically.
        """
        storage = open_storage(root) if create else peek_storage(root)
        if storage.head(LAKE_FILE) is None:
            if not create:
                raise LakeError(
                    "There is no lake", where=root, remedy="run a job into it, or check --lake"
                )
            _create(storage)
        _check_format(storage)
        return LakeStore(storage, night)

    @staticmethod
    def peek(root: str) -> "LakeStore":
        """Open a lake to look at; where there is none, one without any rows."""
        storage = peek_storage(root)
        if storage.head(LAKE_FILE) is not None:
            _check_format(storage)
        return LakeStore(storage)

    @property
    def root(self) -> str:
        """Where the lake lies."""
        return self.storage.root

    @property
    def night(self) -> date:
        """The night that runs begun here belong to."""
        return self._night or datetime.now(UTC).date()

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Rows of published runs: as they stand now, or within `snapshot` as they stood then."""
        if self._snapshot is None:
            return self._reader().query(sql, parameters)
        # A study plans many jobs that ask the same of one snapshot.
        asked = f"{sql}\n{sorted((parameters or {}).items())}"
        if asked not in self._answers:
            rows = self._snapshot.query(sql, parameters)
            if rows.nbytes > _REMEMBERED_BYTES:
                return rows
            self._remember(asked, rows)
        return self._answers[asked]

    def batches(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, rows: int
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """Like `query`, up to ``rows`` rows at a time."""
        return self._reader().batches(sql, parameters, rows)

    def _remember(self, asked: str, rows: pa.Table) -> None:
        """Keep an answer, and forget the oldest ones where that makes too much."""
        self._answers[asked] = rows
        held = sum(one.nbytes for one in self._answers.values())
        for oldest in list(self._answers)[:-1]:
            if held <= _ALL_REMEMBERED_BYTES:
                return
            held -= self._answers.pop(oldest).nbytes

    def _reader(self) -> LakeReader:
        return self._snapshot or self._new_reader()

    def _new_reader(self) -> LakeReader:
        return LakeReader(self.storage, rivals=self._rivals, copies=self._copies)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all queries of the block see the lake as it stands at its first one."""
        self._snapshot = self._new_reader()
        try:
            yield
        finally:
            self._snapshot = None
            self._answers.clear()

    @contextmanager
    def lease(self, key: tuple[str, ...]) -> Iterator[None]:
        """Hold ``key`` alone until the block ends.

        Raises:
            LeaseHeld: if another driver holds it.
        """
        with hold(self.storage, key) as lease:
            # Read before anything is planned: what commits after this moment is found out.
            self._leases[key] = lease, read_versions(self.storage, key)
            try:
                yield
            finally:
                del self._leases[key]

    def unfinished(self, plan_key: tuple[str, ...], fingerprint: str) -> Run | None:
        """The run an earlier driver left unfinished; one of another fingerprint is abandoned."""
        found: LakeRun | None = None
        marks = sorted(one.path for one in self.storage.list(open_prefix(plan_key)))
        for path in marks:
            run = LakeRun(self.storage, path.rpartition("/")[2], resumed=True)
            if self.storage.head(plan_path(run.id)) is None:
                self.storage.delete(path)  # somebody removed the run, and nothing can go on with it
            elif states_written(self.storage, run.id):
                close(run)  # committed by a driver that died before it took the mark away
            elif run.plan.fingerprint == fingerprint and found is None:
                found = run
            else:
                abandon(run)
        return found

    def begin(self, plan: Plan, spec: Mapping[str, Any]) -> Run:
        """Fix a plan as a new run."""
        run_id = new_run_id(plan.kind)
        _, versions = self._leases[plan.key]
        header = {
            "spec": dict(spec),
            "key_versions": dict(versions.key),
            "table_versions": dict(versions.tables),
            "began_at": datetime.now(UTC).isoformat(),
        }
        write_plan(self.storage, run_id, plan, header)
        return LakeRun(self.storage, run_id, resumed=False)

    def commit(
        self, run: Run, seconds: Mapping[str, float], verdict: Verdict | None = None
    ) -> Report:
        """Make a finished run's rows visible, or stage them where the gate holds the run."""
        lake_run = LakeRun(self.storage, run.id, resumed=run.resumed)
        lease, _ = self._leases[run.plan.key]
        state = RunState.HELD if verdict and verdict.holds else RunState.PUBLISHED
        facts = verdict.facts if verdict else {}
        return commit_run(lake_run, lease, state=state, seconds=seconds, facts=facts)

    def last_run(self, key: tuple[str, ...]) -> Mapping[str, Any] | None:
        """The ``fingerprint`` and ``facts`` of the newest published run of ``key``."""
        return self._reader().last_run(key)

    def runs_of(self, key: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
        """The held and published runs of ``key``, newest first, as rows of `runs`."""
        return self._reader().runs_of(key)

    def held_images(self, key: tuple[str, ...]) -> pa.Array:
        """Ids of images whose rows wait in a held run of ``key``."""
        whose = "/".join(key)
        held = [
            LakeRun(self.storage, one.run_id, resumed=True)
            for one in self._reader().runs().values()
            if one.key == whose and one.state == RunState.HELD
        ]
        ids = [run.plan.inputs["image_id"].combine_chunks() for run in held]
        return pa.concat_arrays(ids) if ids else pa.array([], pa.string())

    def prepared(self, recipe: str, image_ids: pa.ChunkedArray) -> pa.Table:
        """Where pixels prepared by ``recipe`` lie, of those images that have some."""
        return self._reader().locate("prepared", {"recipe": recipe}, image_ids)

    def list_source(self, uri: str) -> Iterable[SourceFile]:
        """The files of an archive, sorted by path."""
        return list_source(uri)

    def list_batches(self, uri: str) -> Iterable[pa.RecordBatch]:
        """Like `list_source`, thousands of files at a time; columns of `LISTING`."""
        return list_batches(uri)

    def read_source(self, uri: str) -> bytes:
        """One file, such as a metadata CSV."""
        return read_source(uri)

    def digest_source(self, uri: str) -> str:
        """The hash of one file, which is read again only once it changed.

        A study plans many trainings that start from the same weights.
        """
        state = head_source(uri)
        known = self._digests.get(uri)
        if known is None or known[0] != state:
            known = self._digests[uri] = state, digest(self.read_source(uri))
        return known[1]

    def bundle(self, reference: str) -> Mapping[str, Any]:
        """The row of `models` and the ``uri`` of a bundle, by ``name`` or ``name@version``.

        Raises:
            BundleError: if there is none; names those that exist.
        """
        name, version = parse_reference(reference)
        rows = self.query(
            "SELECT * FROM current_models WHERE name = $name ORDER BY version DESC",
            {"name": name},
        ).to_pylist()
        matching = [row for row in rows if version in (None, row["version"])]
        if not matching:
            names = self.query("SELECT DISTINCT name FROM models ORDER BY name")["name"].to_pylist()
            raise BundleError(
                "No such bundle",
                where=self.root,
                got=reference,
                remedy=f"bundles of this lake: {', '.join(names) or 'none; train one first'}",
            )
        row = matching[0]
        return {**row, "uri": f"{self.root}/{bundle_folder(row['name'], row['version'])}"}

    def put_bundle(self, run: Run, name: str, files: Mapping[str, bytes]) -> tuple[int, str]:
        """Write a bundle whole under the next free version; returns version and uri."""
        version = put_bundle(self.storage, name, files, run_id=run.id)
        return version, f"{self.root}/{bundle_folder(name, version)}"


def _create(storage: Storage) -> None:
    require_atomic(storage)
    document = {"format": FORMAT_VERSION, "created_at": datetime.now(UTC).isoformat()}
    storage.put_new(LAKE_FILE, json.dumps(document).encode())


def _check_format(storage: Storage) -> None:
    document = json.loads(storage.get(LAKE_FILE))
    if document.get("format") != FORMAT_VERSION:
        raise LakeError(
            "The lake has another format",
            where=storage.root,
            got=f"version {document.get('format')}, this Rayward reads {FORMAT_VERSION}",
            remedy="use the version of Rayward that made it, or export its tables",
        )
