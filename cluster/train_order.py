"""A training as it travels from the driver to the process that leads it; loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.actor import ActorHandle

Noted = Mapping[str, float] | str
"""The figures of a finished epoch, or a warning."""


@dataclass(frozen=True)
class TrainOrder:
    """A training as it travels to the process that leads it."""

    lake: str
    run_id: str
    rows: pa.Table
    config: Mapping[str, Any]
    workers: int
    board: "ActorHandle[Board]"

    @property
    def alone(self) -> bool:
        """Whether the process that leads does the work itself."""
        return self.workers == 1 or "svm" in self.config

    def note(self, noted: Noted) -> None:
        """Tell the driver of a finished epoch, or of something that went wrong."""
        ray.get(self.board.note.remote(noted))


class Board:
    """Where the first worker notes each finished epoch, for the driver to show."""

    def __init__(self) -> None:
        self._noted: list[Noted] = []

    def note(self, noted: Noted) -> None:
        """Add an epoch's figures, or a warning."""
        self._noted.append(noted)

    def since(self, seen: int) -> list[Noted]:
        """What was noted after the first ``seen``."""
        return self._noted[seen:]
