"""Training as the pool starts it: a Ray task leads, so that the driver loads no torch."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.deaths import fate_of
from cluster.progress import Progress
from cluster.ray_failures import as_ours
from cluster.train_end import training_ended
from cluster.train_order import Noted, TrainOrder, open_board
from cluster.watching.metrics import Ended, RunMetrics, Standing
from cluster.works import train_bundle
from schemas.protocols import Run

POLL_S = 1.0
"""How often the driver looks for a finished epoch."""
_RETRIES = 2
"""How often a training is gone on with whose process died."""

_TOLD = ("loss", "val_loss", "auc", "accuracy", "ap50", "spread", "probe_accuracy")
"""Figures of an epoch that are shown, where a training has them."""


def _pass(*_told: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Listener:
    """Who is told how a training goes, in the process that asked for it."""

    hear: Callable[[Noted], object]
    """Told of finished epochs and warnings."""
    ended: Callable[[Ended], object]
    """Told of the end."""
    died: Callable[[str], object] = _pass
    """Told what ended a process that led the training."""
    look: Callable[[], object] = _pass
    """Called every second while the training is at work."""


def train_on_ray(
    lake: str, run: Run, config: Mapping[str, Any], workers: int, progress: Progress
) -> Mapping[str, bytes]:
    """Train on a running Ray; returns the bundle's files and `schemas.bundle.OUTCOME_FILE`.

    A run that was interrupted goes on at its last finished epoch.
    """
    plan = run.plan
    shown = Shown(progress, plan.name, plan.inputs.num_rows, epochs_of(config))
    metrics = RunMetrics((plan.kind, plan.name, run.id), has_gpu=False)
    started_s = time.monotonic()
    listener = Listener(
        shown.add,
        lambda end: metrics.shard_ended(end.done, end.figures),
        metrics.died,
        lambda: metrics.show(Standing([time.monotonic() - started_s] * workers, 0, 1, 0)),
    )
    try:
        return train_and_tell(lake, run, config, workers, listener)
    finally:
        metrics.show(Standing((), 0, 0, 0))
        progress.finish()


def train_and_tell(
    lake: str, run: Run, config: Mapping[str, Any], workers: int, listener: Listener
) -> Mapping[str, bytes]:
    """Like `train_on_ray`; what happens is told to ``listener``."""
    started_s = time.perf_counter()
    board = open_board()
    fields = {"kind": run.plan.kind, "job": run.plan.name, "run_id": run.id}
    order = TrainOrder(lake, run.id, run.plan.inputs, config, workers, board, fields)
    try:
        made = _lead(order, listener)
    except RayError as error:
        raise as_ours(error, f"{run.id}, training") from error
    finally:
        board.remove()
    files, end = training_ended(lake, run, made, time.perf_counter() - started_s)
    listener.ended(end)
    return files


def _lead(order: TrainOrder, listener: Listener) -> dict[str, bytes]:
    """Let a process lead the training; one that dies gets a successor, which goes on from there."""
    cpus, gpus = _held(order)
    lead = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(train_bundle)
    left = _RETRIES
    while True:
        leading: Any = lead.remote(order)
        _follow(leading, order, listener)
        try:
            files: dict[str, bytes] = ray.get(leading)
            return files
        except RayTaskError:
            raise
        except RayError as error:
            listener.died(fate_of(error).name.lower())
            if not left:
                raise
            left -= 1


def _follow(leading: Any, order: TrainOrder, listener: Listener) -> None:
    """Tell what is noted until the leading process ends."""
    ready = False
    while not ready:
        ready = bool(ray.wait([leading], timeout=POLL_S)[0])
        for noted in order.board.fresh():
            listener.hear(noted)
        listener.look()


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
        progress.start(job, images * epochs, "images")

    def add(self, noted: Noted) -> None:
        """Show an epoch, unless it was shown already, or a warning."""
        if isinstance(noted, str):
            self._progress.note(noted)
        else:
            self._epoch(noted)

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
        self._progress.note(told_epoch(done, self._epochs, figures))


def told_epoch(done: int, epochs: int, figures: Mapping[str, float]) -> str:
    """A finished epoch in words: ``epoch 3 of 14: loss 0.21, auc 0.93``."""
    shown = [name for name in _TOLD if name in figures]
    told = ", ".join(f"{name.replace('_', ' ')} {figures[name]:.4g}" for name in shown)
    return f"epoch {done} of {epochs}: {told}"
