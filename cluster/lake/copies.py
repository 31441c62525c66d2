"""Copies on this machine's disk of data files that lie in a store.

Planning asks several times of the same few columns. Files never change once they are written, so
each is fetched once, and then read as on a disk, which takes half the time and half the memory.
Files of prepared pixels are left where they are, unless they are small: of those, only the ids are
asked for here.
"""

import shutil
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.lake.snapshot import LakeFile
from cluster.own_folders import make_folder
from cluster.storage import STORE_ERRORS, Storage
from schemas.tables import TABLES

MOST_BYTES = 2 * 2**30
"""All copies of a lake; what comes after them is read where it lies."""
_OF_FREE = 4
"""Copies take at most this part of what is free on the disk."""
_WHOLE_BYTES = 2**20
"""A file up to this size takes about as long to fetch as a part of it."""
_PARALLEL = 8


class Copies:
    """Copies of a lake's files, gone with the object; only their user may read them.

    Those of a process that was killed go when the next one makes some.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folder: Path | None = None
        self._paths: dict[str, Path] = {}
        self._bytes = 0

    def of(self, table: str, files: Sequence[LakeFile]) -> dict[str, str] | None:
        """Paths of copies of a table's files, by their paths; nothing unless all are to be had."""
        holds_pixels = TABLES[table].rows_per_file is not None
        if holds_pixels and any(one.bytes > _WHOLE_BYTES for one in files):
            return None
        names = {one.path: f"tables/{table}/{one.path}" for one in files}
        sizes = {names[one.path]: one.bytes for one in files if names[one.path] not in self._paths}
        if sizes and not self._fetch(sizes):
            return None
        return {path: str(self._paths[name]) for path, name in names.items()}

    def _fetch(self, sizes: dict[str, int]) -> bool:
        """Copy objects, by their sizes; says whether that was possible."""
        folder = self._made()
        wanted = sum(sizes.values())
        spare = min(MOST_BYTES - self._bytes, shutil.disk_usage(folder).free // _OF_FREE)
        if wanted > spare:
            return False
        targets = {name: folder / f"{len(self._paths) + at}" for at, name in enumerate(sizes)}
        try:
            with ThreadPoolExecutor(_PARALLEL) as readers:
                copied = readers.map(self._storage.copy, sizes, targets.values(), sizes.values())
                list(copied)
        except STORE_ERRORS:
            return False  # whoever reads in place says what is wrong
        self._paths |= targets
        self._bytes += wanted
        return True

    def _made(self) -> Path:
        if self._folder is None:
            self._folder = make_folder("copies")
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder
