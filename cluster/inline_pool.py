"""A pool of one: shards, finishing steps and trainings in this very process.

For work that is one of many side by side, such as the trials of a study: what a process loaded for
one job (torch takes seconds) serves the next. It computes with the same functions as
`cluster.pool`, so the rows are the same; a process that an image ends is not saved here.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from cluster.lake.runs import LakeRun
from cluster.shards import ShardProcess, ShardTask, encode_rows, finish_run
from cluster.storage import open_storage
from cluster.train_end import metered, training_ended
from cluster.watching.logs import log_fields
from cluster.watching.meter import own_gpus
from cluster.watching.metrics import Ended
from cluster.works import WORKS, measure_drift, train_here
from schemas.errors import RunError
from schemas.protocols import Run
from schemas.specs.base import Execution

Warn = Callable[[str], object]
"""Told what went wrong without ending the work."""
Note = Callable[[Mapping[str, float]], object]


def _pass(_end: Ended) -> None:
    """Tell nobody."""


class InlinePool:
    """Implements `schemas.protocols.Pool` without any other process."""

    def __init__(
        self,
        lake: str,
        warn: Warn,
        experiment: str | None = None,
        note: Note | None = None,
        ended: Callable[[Ended], object] = _pass,
    ) -> None:
        """``experiment`` is what trainings are tracked under; their model's name when not given.

        ``note`` is told the figures of every finished epoch, ``ended`` of every shard and training
        that is done.
        """
        self._lake, self._warn, self._note, self._ended = lake, warn, note, ended
        self._tracked = {"experiment": experiment} if experiment else {}

    def run_shards(self, run: Run, execution: Execution) -> None:
        """Compute every pending shard of a run, one after the other, and put its receipt."""
        lake_run = LakeRun(open_storage(self._lake), run.id, resumed=run.resumed)
        pending = lake_run.pending()
        if not pending:
            return
        plan = lake_run.plan
        process = ShardProcess(self._lake, run.id, plan.kind, dict(plan.params), own_gpus())
        for shard in pending:
            outcome = process.run(ShardTask(shard, encode_rows(lake_run.rows(shard)), {}))
            self._ended(Ended(plan.kind, outcome.done, outcome.figures))

    def finish(self, run: Run) -> None:
        """Compute the finishing step of the run's kind, if it has one that is not done yet."""
        lake_run = LakeRun(open_storage(self._lake), run.id, resumed=run.resumed)
        if WORKS[run.plan.kind].finish is not None and not lake_run.is_finished():
            finish_run(self._lake, run.id)

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        """Train in this process; returns the files of the finished training.

        Raises:
            RunError: if more than one process is to train.
        """
        if workers != 1:
            raise RunError(
                "This process trains alone",
                where=run.plan.name,
                got=f"{workers} workers",
                remedy="set `world_size: 1`",
            )
        stated, rows = {**config, **self._tracked}, run.plan.inputs
        started_s = time.perf_counter()
        with log_fields({"kind": run.plan.kind, "run_id": run.id}):
            made = metered(
                lambda: train_here(self._lake, run.id, rows, stated, self._note, self._warn)
            )
        files, end = training_ended(self._lake, run, made, time.perf_counter() - started_s)
        self._ended(end)
        return files

    def measure_drift(
        self, scores: pa.Table, reference: pa.Table, model: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """How far scores moved from a reference, measured in this process."""
        return measure_drift(scores, reference, model)
