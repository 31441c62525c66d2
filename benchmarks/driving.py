"""Ray on this machine for a row, jobs run on it, and rates without start-up."""

import io
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.data
import yaml
from ray.cluster_utils import Cluster

from cluster.progress import Progress
from cluster.runner import run_jobs
from schemas.jobfile import load
from schemas.protocols import Report

OBJECT_STORE_BYTES = 2 * 2**30

Mark = tuple[float, int]
"""A moment (seconds of `time.perf_counter`) and the images that ended with it."""


class Marks(Progress):
    """Notes when shards end instead of showing it."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), quiet=True)
        self.began_s = 0.0
        self.marks: list[Mark] = []

    def start(self, job: str, total: int, unit: str, settled: int = 0) -> None:
        """Forget an earlier job."""
        self.began_s, self.marks = time.perf_counter(), []

    def advance(self, done: int, rejected: int = 0) -> None:
        """Note that a shard ended."""
        if done or rejected:
            self.marks.append((time.perf_counter(), done + rejected))


def steady_rate(marks: Sequence[Mark], processes: int) -> float:
    """Images a second once every process has ended one shard.

    From the end of the shard that is the ``processes``-th to end, to the end of the last: start-up
    and the first shard (whose process may still import) are left out, and what every process had
    half done at the start of the time is what a steady run has half done at any moment.

    Raises:
        ValueError: if there are fewer than two shards a process.
    """
    if len(marks) < 2 * processes:
        raise ValueError(f"too few shards: {len(marks)} for {processes} processes")
    begun_s = marks[processes - 1][0]
    return sum(count for _, count in marks[processes:]) / (marks[-1][0] - begun_s)


@contextmanager
def ray_nodes(cpus: Sequence[int]) -> Iterator[str]:
    """A Ray of one node for each entry of ``cpus``, the first its head; yields its address."""
    # Below a folder of its own, so that no other Ray of this machine takes it for the current one;
    # a short one, since socket paths are limited.
    folder = tempfile.mkdtemp(prefix="rwb-")
    settings = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    (Path(folder) / "ray").mkdir()
    logging.getLogger("ray").setLevel(logging.ERROR)
    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": cpus[0],
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        },
    )
    try:
        for more in cpus[1:]:
            nodes.add_node(num_cpus=more, object_store_memory=OBJECT_STORE_BYTES)
        yield nodes.address
    finally:
        nodes.shutdown()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def driver(address: str) -> Iterator[None]:
    """This process as a driver of a running Ray, for peers that use Ray without Rayward."""
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    quiet = ray.data.DataContext.get_current()
    quiet.enable_progress_bars = quiet.use_ray_tqdm = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def run_file(
    folder: Path, lake: Path, jobs: Sequence[Mapping[str, Any]], address: str
) -> tuple[list[Report], Marks]:
    """Run jobs as ``rayward run --address`` does; returns reports and the last job's marks.

    Raises:
        AssertionError: if a job rejects an image.
    """
    file = folder / "jobs.yaml"
    file.write_text(yaml.safe_dump({"lake": str(lake), "jobs": [dict(job) for job in jobs]}))
    marks = Marks()
    reports = list(run_jobs(load(file), only=(), address=address, progress=marks))
    assert not any(report.counts.rejected for report in reports), reports
    return reports, marks


def fresh_copy(lake: Path, copy: Path) -> Path:
    """The lake again, for a run that must find the work undone."""
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(lake, copy))


def timed(items: Iterator[int], then: Callable[[], object] | None = None) -> list[Mark]:
    """When each item of a peer came, and how many images it stands for."""
    marks = [(time.perf_counter(), count) for count in items]
    if then is not None:
        then()
    return marks
