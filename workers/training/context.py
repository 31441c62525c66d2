"""What the epoch loop knows of the process it runs in."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class TrainContext(Protocol):
    """One worker of a training; the same on every rank but for ``rank``."""

    rank: int
    world_size: int
    device: str
    """As torch names it: cpu, cuda:0."""

    def report(self, metrics: Mapping[str, float], checkpoint_dir: Path | None) -> None:
        """End an epoch on every rank; the first rank hands over a folder to be kept."""
        ...

    def load_checkpoint(self) -> AbstractContextManager[Path | None]:
        """The folder last reported, to read from, or None at a first start."""
        ...
