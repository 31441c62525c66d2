"""Ray as a pool of processes: shards, finishing steps and trainings."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import ray
from ray.exceptions import RayError

from cluster.lake.runs import LakeRun
from cluster.progress import Progress
from cluster.ray_failures import as_ours
from cluster.ray_session import RaySession
from cluster.shard_run import ShardRun
from cluster.shards import finish_run
from cluster.storage import open_storage
from cluster.train import train_on_ray
from cluster.watching.logs import log_fields
from cluster.works import WORKS, measure_drift
from schemas.protocols import Run
from schemas.specs.base import Execution


class RayPool:
    """Implements `schemas.protocols.Pool`; Ray starts with the first work there is."""

    def __init__(self, lake: str, session: RaySession, progress: Progress) -> None:
        self._lake, self._session, self._progress = lake, session, progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.stop()

    def run_shards(self, run: Run, execution: Execution) -> None:
        """Compute every pending shard of a run and put its receipt.

        Raises:
            ShardFailed: if a shard fails for a reason no single image explains.
        """
        lake_run = LakeRun(open_storage(self._lake), run.id, resumed=run.resumed)
        pending = lake_run.pending()
        settled = lake_run.plan.inputs.num_rows - sum(
            lake_run.rows(shard).num_rows for shard in pending
        )
        if not pending:
            return
        self._session.start()
        self._progress.start(run.plan.name, lake_run.plan.inputs.num_rows, run.plan.unit, settled)
        try:
            with log_fields({"kind": run.plan.kind, "job": run.plan.name, "run_id": run.id}):
                ShardRun(self._lake, lake_run, execution, self._progress).compute(pending)
        finally:
            self._progress.finish()

    def finish(self, run: Run) -> None:
        """Compute the finishing step of the run's kind, if it has one that is not done yet."""
        lake_run = LakeRun(open_storage(self._lake), run.id, resumed=run.resumed)
        if WORKS[run.plan.kind].finish is not None and not lake_run.is_finished():
            self._session.start()
            try:
                ray.get(ray.remote(finish_run).remote(self._lake, run.id))
            except RayError as error:
                raise as_ours(error, f"{run.id}, finishing step") from error

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        """Train with ``workers`` processes; returns the files of the finished training."""
        self._session.start()
        with log_fields({"kind": run.plan.kind, "job": run.plan.name, "run_id": run.id}):
            return train_on_ray(self._lake, run, config, workers, self._progress)

    def measure_drift(
        self, scores: pa.Table, reference: pa.Table, model: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """How far scores moved from a reference, measured in this process."""
        return measure_drift(scores, reference, model)
