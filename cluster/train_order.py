"""A training as it travels from the driver to the process that leads it; loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from ray.actor import ActorHandle


@dataclass(frozen=True)
class TrainOrder:
    """A training as it travels to the process that leads it."""

    lake: str
    run_id: str
    rows: pa.Table
    config: Mapping[str, Any]
    workers: int
    board: "ActorHandle[Board]"


class Board:
    """Where the first worker notes each finished epoch, for the driver to show."""

    def __init__(self) -> None:
        self._figures: list[Mapping[str, float]] = []

    def note(self, figures: Mapping[str, float]) -> None:
        """Add an epoch's figures."""
        self._figures.append(figures)

    def since(self, seen: int) -> list[Mapping[str, float]]:
        """The epochs after the first ``seen``."""
        return self._figures[seen:]
