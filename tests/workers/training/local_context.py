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
