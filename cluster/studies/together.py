"""A pool for one trial that several processes train together."""

from collections.abc import Mapping
from io import StringIO
from typing import Any

import pyarrow as pa

from cluster.pool import RayPool
from cluster.progress import Progress
from cluster.ray_session import RaySession
from cluster.train import Listener, train_and_tell
from cluster.train_order import GPUS
from schemas.protocols import Run
from schemas.specs.base import Execution


class TogetherPool:
    """Implements `schemas.protocols.Pool` on the Ray that runs already."""

    def __init__(self, lake: str, experiment: str, listener: Listener, gpus: float) -> None:
        """``listener`` is told of trainings; ``gpus`` are those of each training process."""
        self._lake, self._listener = lake, listener
        self._stated = {"experiment": experiment, GPUS: gpus}
        self._pool = RayPool(lake, RaySession(), Progress(StringIO(), quiet=True))

    def run_shards(self, run: Run, execution: Execution) -> None:
        """Compute every pending shard of a run and put its receipt."""
        self._pool.run_shards(run, execution)

    def finish(self, run: Run) -> None:
        """Compute the finishing step of the run's kind, if it has one that is not done yet."""
        self._pool.finish(run)

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        """Train with ``workers`` processes; returns the files of the finished training."""
        stated = {**config, **self._stated}
        return train_and_tell(self._lake, run, stated, workers, self._listener)

    def measure_drift(
        self, scores: pa.Table, reference: pa.Table, model: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """How far scores moved from a reference, measured in this process."""
        return self._pool.measure_drift(scores, reference, model)
