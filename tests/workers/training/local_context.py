"""A training worker of its own, for tests that need no cluster."""

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path


class LocalContext:
    """A single worker without a cluster, keeping its last checkpoint in a folder."""

    rank = 0
    world_size = 1

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = device
        self.reports: list[Mapping[str, float]] = []
        self._folder = folder

    def report(self, metrics: Mapping[str, float], checkpoint_dir: Path | None) -> None:
        """Keep the metrics, and the checkpoint in place of the one before."""
        self.reports.append(dict(metrics))
        if checkpoint_dir is None:
            return
        fresh = self._folder.with_suffix(".new")
        shutil.copytree(checkpoint_dir, fresh, dirs_exist_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        fresh.rename(self._folder)

    def load_checkpoint(self) -> AbstractContextManager[Path | None]:
        """The folder, or None where nothing was reported yet."""
        return nullcontext(self._folder if self._folder.exists() else None)


class Interrupted(Exception):
    """Stands in for a process that is killed after an epoch."""


class DyingContext(LocalContext):
    """Dies right after it kept the checkpoint of an epoch."""

    def __init__(self, folder: Path, dies_after: int) -> None:
        super().__init__(folder)
        self._left = dies_after

    def report(self, metrics: Mapping[str, float], checkpoint_dir: Path | None) -> None:
        """Keep what is reported, then die if it is time."""
        super().report(metrics, checkpoint_dir)
        self._left -= 1
        if not self._left:
            raise Interrupted
