"""Checkpoints of a training that runs in one process, kept with its run in the lake.

::

    _runs/R/train/here/000003-1f0c9a2b/NAME     the files of a checkpoint after three epochs
    _runs/R/train/here/000003-1f0c9a2b.json     written last: their sizes, which make it whole

A checkpoint is whole or passed over, and older ones go only once a newer one is whole, so that a
process killed at any moment leaves one to go on from.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from cluster.lake.layout import train_prefix
from cluster.own_folders import passing_folder
from cluster.storage import Storage

_MARKER = ".json"


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self._storage = storage
        self._prefix = f"{train_prefix(run_id)}/here"

    def keep(self, epochs_done: int, folder: Path) -> None:
        """Write the files of a folder as the newest checkpoint, then remove older ones."""
        # No name is written twice: what another process left half done is never mixed in.
        name = f"{epochs_done:06d}-{uuid4().hex[:8]}"
        sizes = {}
        for file in sorted(folder.iterdir()):
            self._write(f"{self._prefix}/{name}/{file.name}", file)
            sizes[file.name] = file.stat().st_size
        self._storage.put(self._marker(name), json.dumps(sizes).encode())
        self._remove_older_than(name)

    def _write(self, path: str, file: Path) -> None:
        if self._storage.local_path is None:
            self._storage.put(path, file.read_bytes())
            return
        # No other file bears this name, so nothing is gained from an atomic write, which takes
        # three times as long.
        target = self._storage.local_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)

    @contextmanager
    def newest(self) -> Iterator[Path | None]:
        """The newest whole checkpoint as a folder of this machine, or None where there is none."""
        with passing_folder("resume") as scratch:
            folders = (self._fetch(name, scratch / name) for name in self._names())
            yield next((folder for folder in folders if folder is not None), None)

    def _names(self) -> list[str]:
        """Checkpoints whose marker is there, newest first."""
        found = (path for path, name in self._paths() if path == self._marker(name))
        return sorted((Path(path).stem for path in found), reverse=True)

    def _paths(self) -> list[tuple[str, str]]:
        """Every object here, with the checkpoint it belongs to."""
        below = len(self._prefix) + 1
        paths = [entry.path for entry in self._storage.list(self._prefix)]
        return [(path, path[below:].partition("/")[0].removesuffix(_MARKER)) for path in paths]

    def _marker(self, name: str) -> str:
        return f"{self._prefix}/{name}{_MARKER}"

    def _fetch(self, name: str, folder: Path) -> Path | None:
        """A folder with the files of a checkpoint; None if one is missing or cut short."""
        try:
            sizes: Mapping[str, int] = json.loads(self._storage.get(self._marker(name)))
            if self._storage.local_path is not None:
                folder = self._storage.local_path / self._prefix / name
                whole = all((folder / file).stat().st_size == sizes[file] for file in sizes)
                return folder if whole else None
            folder.mkdir()
            for file, size in sizes.items():
                data = self._storage.get(f"{self._prefix}/{name}/{file}")
                (folder / file).write_bytes(data)
                if len(data) != size:
                    return None
        except FileNotFoundError:
            return None
        return folder

    def _remove_older_than(self, newest: str) -> None:
        """Remove older checkpoints, the marker first: without it the files are no checkpoint."""
        older = [(path, name) for path, name in self._paths() if name < newest]
        for path, _ in sorted(older, key=lambda one: one[0] != self._marker(one[1])):
            self._storage.delete(path)
        if self._storage.local_path is not None:
            for name in {name for _, name in older}:
                with suppress(OSError):
                    (self._storage.local_path / self._prefix / name).rmdir()
