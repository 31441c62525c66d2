"""The way of a submission: name it, pack it, ask the nodes, hand it over, or attach to its like."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

from cluster.lake.store import LakeStore
from cluster.nights.night import Night
from cluster.own_folders import passing_folder
from cluster.runner import select
from cluster.storage import Storage
from cluster.submission.client import CHECK_NOTE, LAKE_NOTE, ORDER_NOTE, Cluster, JobOrder
from cluster.submission.leftovers import LeftOut
from cluster.submission.naming import SubmissionId, first_attempt, newest_attempt
from cluster.submission.order import ORDER_FILE, Order, absolute, local_paths, settle_paths
from cluster.submission.packing import Package, list_files, mebibytes, pack
from cluster.submission.preflight import Needs, Node, check
from cluster.submission.probe import FAILED, MARK, QUESTION_FILE
from cluster.submission.record import driver_of, recorded_ids, recorded_order
from cluster.submission.withheld import secret_files
from cluster.submission.witness import Question, nonce_path, versions
from jobs.ingest.catalogue import has_pseudonyms
from schemas.errors import RunError, UsageError
from schemas.jobfile import JobFile
from schemas.masking import holds_secret, names_secret

_PYTHON = 'exec "${RAYWARD_PYTHON:-python}" -m '
_DRIVER, _PROBE = f"{_PYTHON}cluster.submission.driver", f"{_PYTHON}cluster.submission.probe"
_STOP_WAIT = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
"""Ray kills a job three seconds after it asked it to stop; ours gives its leases up first."""
_PREFLIGHT_S = 300.0
_COLLISIONS = 5


@dataclass(frozen=True)
class Wish:
    """What a user wants submitted."""

    job_file: JobFile
    job: str
    """Name of the submission, without date and attempt."""
    here: Path
    """Where the command runs: relative paths start there."""
    working_dir: Path
    only: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    autoscaling: bool = False
    preflight: bool = True
    night: date | None = None
    """The night that names the submission; tonight, in the file's time zone, when not given."""

    @property
    def filed_under(self) -> date:
        """The night's date."""
        return Night.begin(self.job_file.night, self.night).date


@dataclass(frozen=True)
class Submitted:
    """A submission that runs."""

    submission_id: str
    attached: bool
    """It ran already; nothing was submitted."""
    known_to_ray: bool = True
    """Ray takes it for running; otherwise its driver lives nevertheless."""


def submit(cluster: Cluster, wish: Wish, say: Callable[[str], object]) -> Submitted:
    """Submit a job file, or attach to the submission of the day that runs already.

    ``say`` tells the user what goes on.

    Raises:
        UsageError: if the cluster can't take the job file, or another one runs under its name.
    """
    select(wish.job_file, wish.only)
    _check_env(wish.env)
    # Settled once: it may be another day when the package is ready.
    wish = replace(wish, night=wish.filed_under)
    files = [one.path for one in list_files(wish.working_dir, _left_out(wish))]
    job_file = settle_paths(wish.job_file, wish.here, wish.working_dir.resolve(), files)
    store = _open_lake(cluster, job_file.lake)
    order = Order("", job_file, wish.only, wish.night)
    for _ in range(_COLLISIONS):
        submission, running = _next(cluster, store.storage, wish, order, say)
        if running:
            return running
        named = replace(order, submission_id=str(submission))
        with _packed(cluster, wish, named, store, say) as packed:
            if wish.preflight:
                _preflight(cluster, wish, packed, store, say)
            note = {LAKE_NOTE: store.root, ORDER_NOTE: order.fingerprint}
            asked = JobOrder(_DRIVER, packed.package.file, {**_STOP_WAIT, **wish.env}, note)
            if cluster.submit(str(submission), asked):
                return Submitted(str(submission), attached=False)
        say(f"{submission} was submitted by somebody else at the same moment.")
    raise RunError("Others submit under the same name all the time", got=str(submission))


def _open_lake(cluster: Cluster, root: str) -> LakeStore:
    """Open the lake, as the nodes will; the nonce shows whether it is the same one."""
    if "://" not in root and not cluster.access.is_local and not Path(root).is_dir():
        raise UsageError(
            "The lake is a folder that is not here, and the cluster is beyond this machine",
            where=root,
            remedy="use s3://bucket/prefix, or one folder mounted at the same path on every node "
            "and here",
        )
    return LakeStore.open(root, create=True)


def _next(
    cluster: Cluster, storage: Storage, wish: Wish, order: Order, say: Callable[[str], object]
) -> tuple[SubmissionId, Submitted | None]:
    """The id to submit under; or the submission that runs already."""
    first = first_attempt(wish.job, wish.filed_under)
    known = [job.submission_id for job in cluster.jobs()]
    newest = newest_attempt(first, [*known, *recorded_ids(storage, first.base)])
    if newest is None:
        return first, None
    job = cluster.job(str(newest))
    if job and not job.is_over:
        end = f"stop it: rayward stop {newest}"
        _check_same(newest, job.metadata.get(ORDER_NOTE), order, end)
        return newest, Submitted(str(newest), attached=True)
    if holder := driver_of(storage, newest):
        # A later attempt may have given up on the driver of this one without a record of its own.
        at_work = newest_attempt(first, recorded_ids(storage, first.base)) or newest
        recorded = recorded_order(storage, str(at_work))
        noted = job.metadata.get(ORDER_NOTE) if job else None
        asked = recorded.fingerprint if recorded else noted
        _check_same(at_work, asked, order, "wait for its end")
        status = job.status.value if job else "nothing"
        say(f"Ray says {status} of {newest}, but the driver of {at_work} lives: {holder}.")
        return at_work, Submitted(str(at_work), attached=True, known_to_ray=False)
    return SubmissionId(newest.job, newest.day, newest.attempt + 1), None


def _check_same(
    submission: SubmissionId, fingerprint: str | None, order: Order, remedy: str
) -> None:
    if fingerprint != order.fingerprint:
        raise UsageError(
            "A submission of this name runs and asks for something else",
            got=str(submission),
            remedy=f"choose another --name, or {remedy}",
        )


@dataclass(frozen=True)
class _Packed:
    package: Package
    question: Question
    order: Order


@contextmanager
def _packed(
    cluster: Cluster, wish: Wish, order: Order, store: LakeStore, say: Callable[[str], object]
) -> Iterator[_Packed]:
    """The package of an order, and the nonce in the lake, for as long as the block lasts."""
    question = Question(order.job_file.lake, secrets.token_hex(16), _to_be_there(order))
    extra = {ORDER_FILE: order.to_bytes(), QUESTION_FILE: json.dumps(asdict(question)).encode()}
    store.storage.put(nonce_path(question.nonce), question.nonce.encode())
    try:
        with passing_folder("package") as folder:
            target = folder / "package.zip"
            held = cluster.access.token
            token = held.get_secret_value() if held else None
            package = pack(wish.working_dir, target, extra, without=_left_out(wish), token=token)
            say(f"Package: {len(package.files):,} files, {mebibytes(package.bytes)}.")
            for one in package.large:
                say(f"  large: {one.path}, {mebibytes(one.bytes)}")
            for left in package.left_out:
                say(f"  left out: {_told(left)}")
            yield _Packed(package, question, order)
    finally:
        store.storage.delete(nonce_path(question.nonce))


def _told(left: LeftOut) -> str:
    """What one rule kept here: ``12 files, 3.4 MiB: images``."""
    more = "" if left.is_whole else " or more"
    files = f"{left.files:,} {'file' if left.files == 1 else 'files'}"
    return f"{files}{more}, {mebibytes(left.bytes)}: {left.rule}"


def _left_out(wish: Wish) -> list[Path]:
    """What stays here: sources, targets and the lake, and files of secrets."""
    named = [*local_paths(wish.job_file.jobs), wish.job_file.lake]
    paths = (absolute(wish.here, one) for one in named if "://" not in one)
    return [*(one for one in paths if not one.is_file()), *secret_files()]


def _to_be_there(order: Order) -> tuple[str, ...]:
    """Paths outside the package that are here, and so must be on every node; others are yet made.

    A relative path is that of a file in the package.
    """
    named = local_paths(select(order.job_file, order.only))
    return tuple(one for one in named if Path(one).is_absolute() and Path(one).exists())


def _preflight(
    cluster: Cluster, wish: Wish, packed: _Packed, store: LakeStore, say: Callable[[str], object]
) -> None:
    """Ask every node, in a job of its own, before anything is submitted."""
    ours = versions()
    theirs = cluster.ray_version()
    if theirs != ours["ray"]:
        raise UsageError(
            "The cluster runs another version of Ray",
            where=cluster.access.url,
            got=f"{theirs}, and {ours['ray']} is here",
            remedy="use the same image on both sides",
        )
    nodes = _ask(cluster, wish, packed)
    jobs = select(packed.order.job_file, wish.only)
    key = any(job.kind == "ingest" for job in jobs) or has_pseudonyms(store)
    check(Needs(packed.question.lake, jobs, ours, key, wish.autoscaling), nodes)
    cpus, gpus = sum(one.cpus for one in nodes), sum(one.gpus for one in nodes)
    say(f"Cluster: {len(nodes)} nodes, {cpus:g} CPUs, {gpus:g} GPUs; all see the lake.")


def _ask(cluster: Cluster, wish: Wish, packed: _Packed) -> list[Node]:
    name = f"{packed.order.submission_id}-check-{secrets.token_hex(3)}"
    note = {CHECK_NOTE: packed.order.submission_id}
    cluster.submit(name, JobOrder(_PROBE, packed.package.file, wish.env, note))
    job = cluster.wait(name, _PREFLIGHT_S)
    if job is None or not job.is_over:
        raise RunError(
            "The nodes were not asked in time",
            where=cluster.access.url,
            got=job.status.value if job else "nothing",
            remedy=f"see: rayward logs {name}; then: rayward stop {name}",
        )
    text = cluster.logs(name)
    answers = [line for line in text.splitlines() if line.startswith(MARK)]
    if not answers:
        raise _unanswered(name, text)
    return [Node.from_dict(one) for one in json.loads(answers[-1].removeprefix(MARK))]


def _unanswered(name: str, text: str) -> RunError | UsageError:
    if "No module named" in text or "not found" in text:
        return UsageError(
            "The cluster's `python` has no Rayward",
            got=text.strip().splitlines()[-1][:200],
            remedy="start its nodes from Rayward's image, or name the right Python in "
            "RAYWARD_PYTHON where `ray start` runs",
        )
    told = [line.removeprefix(FAILED) for line in text.splitlines() if line.startswith(FAILED)]
    return RunError(
        "The nodes could not be asked",
        got=told[-1] if told else "no answer",
        remedy=f"see: rayward logs {name}",
    )


def _check_env(env: Mapping[str, str]) -> None:
    """Refuse secrets: Ray shows a job's variables to everybody who may see the job.

    Raises:
        UsageError: if a variable is one by its name or its value.
    """
    for name, value in env.items():
        if names_secret(name) or holds_secret(value):
            raise UsageError(
                "A secret can't travel with a job: Ray shows a job's variables",
                where=f"--env {name}",
                remedy="set it where the nodes start, or mount it there as a file",
            )
