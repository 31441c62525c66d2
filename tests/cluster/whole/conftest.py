"""The main job run once as a user runs it, for all tests that look at what it left."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

RAYWARD = Path(sys.executable).with_name("rayward")

MAIN_JOB = """
lake: ${LAKE:-./lake}
jobs:
  - kind: phantoms
    target: ./phantoms
    count: 150
    size: 96
    modalities: {us: 0, xray: 1}
    broken_share: 0.05
    duplicate_share: 0.03
    near_duplicate_share: 0.05
    seed: 3
  - kind: ingest
    name: chest
    source: ./phantoms/images
    metadata: {file: ./phantoms/metadata.csv}
    max_reject_share: 0.2
    execution: {shard_images: 16}
  - kind: clean
    dataset: chest
    execution: {shard_images: 16}
  - kind: split
    name: safe
    dataset: chest
    max_group_share: 0.2
  - kind: prepare
    dataset: chest
    preprocess: {size: 32}
    execution: {shard_images: 16}
  - kind: train
    dataset: chest
    split: chest-safe
    model: tiny
    architecture: resnet10t
    preprocess: {size: 32}
    epochs: 2
    batch_size: 16
    world_size: 1
    backends: eager
  - kind: score
    dataset: chest
    model: tiny
    execution: {shard_images: 16}
  - kind: evaluate
    dataset: chest
    split: chest-safe
    model: tiny
    parts: [train, val, test]
    bootstrap: 50
"""


@dataclass(frozen=True)
class Place:
    """A folder with a job file, an archive and a lake, and the command within it."""

    folder: Path
    lake: Path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `rayward` with arguments; environment variables may be added."""
        return subprocess.Popen(
            [RAYWARD, *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "LAKE": str(self.lake),
                "RAYWARD_KEY_FILE": str(self.folder / "pseudonym.key"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(
        self, *arguments: str, code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `rayward` to its end and check its exit code."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=280)
        assert process.returncode == code, out + err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run(self, *arguments: str, code: int = 0, **environment: str) -> list[dict[str, Any]]:
        """Run a job file; returns the JSON object of each job."""
        ended = self.call("run", *arguments, "--json", code=code, **environment)
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query."""
        found = json.loads(self.call("query", sql, "--format", "json").stdout)
        assert isinstance(found, list)
        return found

    def table(self, name: str) -> list[dict[str, Any]]:
        """A table without ids and times of runs, in an order of its own."""
        times = {"images": ", seen_at", "predictions": ", scored_at"}.get(name, "")
        return self.query(f"SELECT * EXCLUDE (run_id{times}) FROM {name} ORDER BY ALL")

    def with_lake(self, lake: Path, *, without: tuple[str, ...] = ()) -> "Place":
        """The same archive with a copy of the lake, to be disturbed; some tables left out."""
        shutil.copytree(self.lake, lake, ignore=lambda _folder, names: set(names) & set(without))
        return Place(self.folder, lake)

    def with_archive(self, folder: Path, *jobs: str) -> "Place":
        """A copy of the archive as the data set `other`, ingested into a lake with the model.

        ``jobs`` are done after `ingest`, in the same run.
        """
        folder.mkdir()
        shutil.copytree(self.folder / "phantoms", folder / "phantoms")
        shutil.copy(self.folder / "pseudonym.key", folder)
        text = (self.folder / "job.yaml").read_text()
        (folder / "job.yaml").write_text(text.replace("chest", "other"))
        other = Place(folder, self.with_lake(folder / "lake", without=("predictions",)).lake)
        only = [word for job in ("other", *jobs) for word in ("--only", job)]
        other.run("job.yaml", *only)
        return other


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, list[dict[str, Any]]]:
    """The main job, done once, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    place = Place(folder, folder / "lake")
    (place.folder / "job.yaml").write_text(MAIN_JOB)
    return place, place.run("job.yaml")


@pytest.fixture(scope="session")
def done(finished: tuple[Place, list[dict[str, Any]]]) -> Place:
    """The place where the main job is done; tests leave it as it is."""
    return finished[0]
