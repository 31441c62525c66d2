"""A training with one worker, in the process that calls: no processes to start, none to wait for.

Its checkpoints lie with the run in the lake, so that any process may go on with it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.foreign import told
from cluster.storage import open_storage
from cluster.tracking import Tracker, open_tracker
from cluster.train_checkpoints import Checkpoints
from cluster.train_task import (
    Note,
    TrainTask,
    Warn,
    failure,
    finish_task,
    fit_task,
    own_device,
    task_of,
)
from schemas.errors import RaywardError, RunError
from workers.training.checkpoint import BEST_FILE, PROGRESS_FILE


class LakeContext:
    """The epoch loop's view of a training's only worker."""

    rank = 0
    world_size = 1

    def __init__(self, checkpoints: Checkpoints, tracker: Tracker, note: Note | None) -> None:
        self.device = own_device()
        self._checkpoints, self._tracker, self._note = checkpoints, tracker, note

    def report(self, metrics: Mapping[str, float], checkpoint_dir: Path | None) -> None:
        """Track the epoch's figures and keep its checkpoint."""
        # Tracked first: an epoch that is trained again is tracked again, but none is left out.
        self._tracker.epoch(metrics)
        if checkpoint_dir is not None:
            self._checkpoints.keep(int(metrics["epoch"]) + 1, checkpoint_dir)
        if self._note is not None:
            self._note(metrics)

    @contextmanager
    def load_checkpoint(self) -> Iterator[Path | None]:
        """The newest checkpoint, or None at a first start."""
        with self._checkpoints.newest() as folder:
            yield folder


def train_here(
    lake: str,
    run_id: str,
    rows: pa.Table,
    config: Mapping[str, Any],
    note: Note | None = None,
    warn: Warn | None = None,
) -> dict[str, bytes]:
    """Train in this process; returns the best epoch's bundle and `schemas.bundle.OUTCOME_FILE`.

    ``rows`` and ``config`` are the inputs and the parameters of the run's plan. Called again with
    the same ``run_id``, in any process, it goes on at the last finished epoch, and ends with the
    same weights as a training that was never cut off. ``note`` is told the figures of every
    finished epoch, ``warn`` what went wrong without ending the training.

    Raises:
        RaywardError: when the training fails; names the cause.
    """
    try:
        task = replace(task_of(lake, run_id, rows, config), note=note, warn=warn)
        return train_task_here(task, Checkpoints(open_storage(lake), run_id))
    except RaywardError:
        raise
    except Exception as error:
        raise failure(run_id, told(error)) from error


def train_task_here(task: TrainTask, checkpoints: Checkpoints) -> dict[str, bytes]:
    """Train a task in this process; see `train_here`."""
    with open_tracker(task.tracking, task.warn) as tracker:
        fitted = fit_task(task, LakeContext(checkpoints, tracker, task.note))
    with checkpoints.newest() as folder:
        if folder is None:
            raise RunError("Training ended without a checkpoint", where=task.method.facts.name)
        last = (folder / BEST_FILE).read_bytes(), (folder / PROGRESS_FILE).read_bytes()
    return finish_task(task, last, fitted)
