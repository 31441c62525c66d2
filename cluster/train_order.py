"""A training as it travels from the driver to the process that leads it; loads no torch."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

Noted = Mapping[str, float] | str
"""The figures of a finished epoch, or a warning."""

GPUS = "gpus_per_worker"
"""Key of a training's parameters: GPUs of each process, where whoever starts it says so."""
MIN_WORKERS = "min_workers"
"""Key of a training's parameters: processes it goes on with at least where machines are lost; as
many as it is asked to begin with when it is not there."""
_PATIENCE_S = 60.0
"""How long an answer of a board is waited for: a training must not stand still for a display."""

_log = logging.getLogger(__name__)


class Board:
    """Where processes note what they have come to, for the driver to show."""

    def __init__(self) -> None:
        self._noted: list[Any] = []

    def note(self, noted: Any) -> None:
        """Add a note."""
        self._noted.append(noted)

    def since(self, seen: int) -> list[Any]:
        """What was noted after the first ``seen``."""
        return self._noted[seen:]


class BoardLink:
    """The way to a board, for those who write and for the one who reads; travels to processes.

    A board only serves to show: where it can't be reached, that is said once, and work goes on.
    """

    def __init__(self, board: "ActorHandle[Board]") -> None:
        self._board = board
        self._seen = 0
        self._is_lost = False

    def note(self, noted: Any) -> None:
        """Add a note to the board."""
        self._ask(self._board.note, noted)

    def fresh(self) -> list[Any]:
        """What was noted since this link was last asked."""
        noted: list[Any] = self._ask(self._board.since, self._seen) or []
        self._seen += len(noted)
        return noted

    def remove(self) -> None:
        """End the board."""
        ray.kill(self._board)

    def _ask(self, method: Any, argument: Any) -> Any:
        if self._is_lost:
            return None
        try:
            return ray.get(method.remote(argument), timeout=_PATIENCE_S)
        except RayError as error:  # of its messages nothing is told: they may quote anything
            self._is_lost = True
            _log.warning("progress can't be shown any more, work goes on: %s", type(error).__name__)
            return None


def open_board() -> BoardLink:
    """Start a board on the running Ray."""
    board: Any = ray.remote(Board).options(num_cpus=0).remote()
    return BoardLink(board)


@dataclass(frozen=True)
class TrainOrder:
    """A training as it travels to the process that leads it."""

    lake: str
    run_id: str
    rows: pa.Table
    config: Mapping[str, Any]
    workers: int
    board: BoardLink = field(repr=False)
    fields: Mapping[str, object] = field(default_factory=dict)
    """What every log line of the processes bears: kind, job and run."""

    @property
    def alone(self) -> bool:
        """Whether the process that leads does the work itself."""
        return self.workers == 1 or "svm" in self.config

    def note(self, noted: Noted) -> None:
        """Tell the driver of a finished epoch, or of something that went wrong."""
        self.board.note(noted)
