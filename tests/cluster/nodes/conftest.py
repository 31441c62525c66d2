"""An archive and a lake with a tiny model, to be cleaned and scored on clusters that fall apart."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.inline_pool import InlinePool
from cluster.kinds import KINDS
from cluster.lake.store import LakeStore
from cluster.storage import open_storage
from schemas.jobfile import load
from schemas.specs import JobSpec
from schemas.specs.ingest import IngestSpec
from schemas.specs.phantoms import Modalities, PhantomsSpec
from schemas.tables import TABLES
from tests.cluster.nights.world import add_bundle, weights
from tests.cluster.nodes.machines import (
    BIN,
    Machines,
    Raylets,
    hold_of,
    plain_environment,
    why_no_machines,
)

JOB = """
jobs:
  - kind: clean
    dataset: chest
    min_sharpness: 0
    max_reject_share: 1
    execution: {shard_images: 5}
  - kind: score
    dataset: chest
    model: lungs
    max_reject_share: 1
    execution: {shard_images: 5}
"""
IMAGES = 160
Site = Raylets | Machines
PACE_S = 0.2
"""A shard lasts so long at least, so that there is a middle to be disturbed."""
RESULTS = ("quality", "predictions", "rejects", "images")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Base:
    """A lake whose images are catalogued and whose model waits for them; nothing changes it."""

    lake: Path
    key: Path
    expected: dict[str, Rows]
    """What an undisturbed run makes of it."""
    paths: frozenset[str]
    """All files that such a run leaves."""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The lake, and a copy of it cleaned and scored in this very process, without any Ray."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYWARD_KEY_FILE", str(folder / "key"))
        store = LakeStore.open(str(folder / "lake"), create=True)
        archive = folder / "archive"
        jobs: list[JobSpec] = [
            PhantomsSpec(
                target=str(archive),
                count=IMAGES,
                size=64,
                modalities=Modalities(us=0, xray=1),
                broken_share=0.05,
                seed=3,
            ),
            IngestSpec(name="chest", source=str(archive / "images"), max_reject_share=1),
        ]
        for job in jobs:
            KINDS[job.kind].run(job, InlinePool(store.root, print), store)
        add_bundle(store, weights(1), "lungs")
        (folder / "job.yaml").write_text(JOB)
        whole = folder / "whole"
        shutil.copytree(folder / "lake", whole)
        store = LakeStore.open(str(whole))
        for job in load(folder / "job.yaml", lake=store.root).jobs:
            report = KINDS[job.kind].run(job, InlinePool(store.root, print), store)
            assert report.status == "published"
    found = contents(whole)
    assert len(found["predictions"]) > 50
    return Base(folder / "lake", folder / "key", found, frozenset(files_of(whole)))


def contents(lake: Path) -> dict[str, Rows]:
    """What readers see, without what differs from run to run: its name, times and devices."""
    store = LakeStore(open_storage(str(lake)))
    found = {table: store.query(_selection(table)).to_pylist() for table in RESULTS}
    runs = "SELECT kind, name, key, counts, fingerprint, state FROM runs ORDER BY ALL"
    return found | {"runs": store.query(runs).to_pylist()}


def _selection(table: str) -> str:
    schema = TABLES[table].schema
    times = [one.name for one in schema if pa.types.is_timestamp(one.type)]
    left_out = {"run_id", "backend", *times} & set(schema.names)
    return f"SELECT * EXCLUDE ({', '.join(sorted(left_out))}) FROM {table} ORDER BY ALL"


def files_of(folder: Path) -> Iterator[str]:
    """Paths of all files, below the folder."""
    for parent, _folders, names in os.walk(folder):
        yield from (os.path.relpath(f"{parent}/{name}", folder) for name in names)


@dataclass
class Place:
    """A folder with a job file and a lake, and commands that run on a cluster's head."""

    folder: Path
    base: Base
    site: Site
    lake: Path = field(init=False)
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin("lake")

    def begin(self, name: str) -> None:
        """A fresh copy of the lake."""
        self.lake = self.folder / name
        shutil.copytree(self.base.lake, self.lake)
        (self.folder / "work").mkdir(exist_ok=True)
        (self.folder / "work/job.yaml").write_text(JOB)

    def start(self, command: str, *arguments: str) -> "subprocess.Popen[str]":
        """Start `rayward` on the job file."""
        full = (str(BIN / "rayward"), command, "job.yaml", f"--lake={self.lake}", *arguments)
        process = subprocess.Popen(
            self.site.on_head(self.folder / "work", *full),
            env=plain_environment() | dict(self.site.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self) -> "subprocess.Popen[str]":
        """Start the jobs with a driver on the head."""
        return self.start("run", f"--address={self.site.address}", "--json")

    def ended(self, process: "subprocess.Popen[str]", code: int = 0) -> tuple[str, str]:
        """What a command said, once it has ended with its code."""
        out, err = process.communicate(timeout=500)
        assert process.returncode == code, out + err
        return out, err

    def receipts(self) -> dict[str, bytes]:
        """Receipts of all runs, by path."""
        return {str(one): one.read_bytes() for one in self.lake.glob("_runs/*/shards/0*.json")}

    def await_receipts(self, count: int) -> None:
        known = len(list(self.base.lake.glob("_runs/*/shards/0*.json")))
        self._await(lambda: len(self.receipts()) >= known + count, "no receipts came")

    def _await(self, there: Callable[[], bool], otherwise: str) -> None:
        """Wait for something that the last command brings about, unless it fails."""
        run = self.started[-1]

        def there_or_failed() -> bool:
            assert not run.poll(), run.communicate()
            return there()

        wait_until(there_or_failed, otherwise)

    def hold(self, worker: str) -> None:
        """Make a worker's shards wait before they are written."""
        hold_of(self.folder, worker).touch()

    def await_held(self, worker: str) -> None:
        self._await(hold_of(self.folder, worker).with_suffix(".reached").exists, "none got there")

    def let_go(self, worker: str) -> None:
        hold_of(self.folder, worker).unlink()

    def assert_undisturbed(self) -> None:
        """The tables are those of a run that nothing disturbed, and nothing is left open."""
        found = contents(self.lake)
        for table, rows in self.base.expected.items():
            assert found[table] == rows, table
        assert not list(files_of(self.lake / "_open"))


def wait_until(there: Callable[[], bool], otherwise: str, limit_s: float = 300) -> None:
    deadline_s = time.monotonic() + limit_s
    while not there():
        assert time.monotonic() < deadline_s, otherwise
        time.sleep(0.02)


@pytest.fixture
def places(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Place]]:
    """Makes a place on raylets, on machines, or on machines that take submissions."""
    monkeypatch.setenv("RAYWARD_KEY_FILE", str(base.key))
    made: list[Place] = []

    def make(form: str) -> Place:
        site: Site
        if form == "raylets":
            site = Raylets(tmp_path, PACE_S)
        else:
            if why := why_no_machines():
                pytest.skip(f"no machines of our own: {why}")
            site = Machines(tmp_path, PACE_S, dashboard=form == "submissions")
        try:
            made.append(Place(tmp_path, base, site))
        except BaseException:
            site.stop()
            raise
        return made[-1]

    yield make
    for place in made:
        for process in place.started:
            if process.poll() is None:
                process.kill()
        place.site.stop()
        for process in place.started:
            process.communicate(timeout=60)
