"""Training as the pool starts it: a Ray task leads, so that the driver loads no torch."""

from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.progress import Progress
from cluster.ray_failures import as_ours
from cluster.train_order import Board, Noted, TrainOrder
from cluster.works import train_bundle
from schemas.protocols import Run

POLL_S = 1.0
"""How often the driver looks for a finished epoch."""
_RETRIES = 2
"""How often a training is gone on with whose process died."""


def train_on_ray(
    lake: str, run: Run, config: Mapping[str, Any], workers: int, progress: Progress
) -> Mapping[str, bytes]:
    """Train on a running Ray; returns the bundle's files and `schemas.bundle.OUTCOME_FILE`.

    A run that was interrupted goes on at its last finished epoch.
    """
    rows = run.plan.inputs
    board: Any = ray.remote(Board).options(num_cpus=0).remote()
    order = TrainOrder(lake, run.id, rows, config, workers, board)
    shown = Shown(progress, run.plan.name, rows.num_rows, epochs_of(config))
    try:
        return _lead(order, shown)
    except RayError as error:
        raise as_ours(error, f"{run.id}, training") from error
    finally:
        progress.finish()
        ray.kill(board)


def _lead(order: TrainOrder, shown: "Shown") -> dict[str, bytes]:
    """Let a process lead the training; one that dies gets a successor, which goes on from there."""
    cpus, gpus = _held(order)
    lead = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(train_bundle)
    left = _RETRIES
    while True:
        leading: Any = lead.remote(order)
        _follow(leading, order.board, shown)
        try:
            files: dict[str, bytes] = ray.get(leading)
            return files
        except RayTaskError:
            raise
        except RayError:
            if not left:
                raise
            left -= 1


def _follow(leading: Any, board: Any, shown: "Shown") -> None:
    """Show what is noted until the leading process ends."""
    ready = False
    while not ready:
        ready = bool(ray.wait([leading], timeout=POLL_S)[0])
        shown.add(ray.get(board.since.remote(shown.seen)))


def _held(order: TrainOrder) -> tuple[float, float]:
    """CPUs and GPUs the leading process holds: one each where it trains itself, otherwise none.

    A machine that has less gives what it has.
    """
    if not order.alone:
        return 0.0, 0.0
    there = ray.cluster_resources()
    return min(there.get("CPU", 0.0), 1.0), min(there.get("GPU", 0.0), 1.0)


def epochs_of(config: Mapping[str, Any]) -> int:
    """Epochs of all stages; 1 for what is fitted in one go."""
    stages = config.get("training", {}).get("stages", [])
    return sum(int(stage["epochs"]) for stage in stages) or 1


class Shown:
    """Shows a training's epochs as progress in images."""

    def __init__(self, progress: Progress, job: str, images: int, epochs: int) -> None:
        self._progress, self._job, self._images, self._epochs = progress, job, images, epochs
        self._done = 0
        self.seen = 0
        """How many notes were added."""
        progress.start(job, images * epochs, "images")

    def add(self, noted: list[Noted]) -> None:
        """Show epochs that were not shown yet, and warnings."""
        self.seen += len(noted)
        for one in noted:
            if isinstance(one, str):
                self._progress.note(one)
            else:
                self._epoch(one)

    def _epoch(self, figures: Mapping[str, float]) -> None:
        done = int(figures["epoch"]) + 1
        if done <= self._done:  # trained again after a worker had died
            return
        if not self._done and done > 1:  # an earlier driver trained the epochs before this one
            settled = (done - 1) * self._images
            self._progress.start(self._job, self._images * self._epochs, "images", settled)
            self._done = done - 1
        self._progress.advance((done - self._done) * self._images)
        self._done = done
        self._progress.note(_told(done, self._epochs, figures))


def _told(done: int, epochs: int, figures: Mapping[str, float]) -> str:
    shown = [name for name in ("loss", "val_loss", "auc", "accuracy") if name in figures]
    told = ", ".join(f"{name.replace('_', ' ')} {figures[name]:.4g}" for name in shown)
    return f"epoch {done} of {epochs}: {told}"
