"""Temporary folders that name the process they belong to, so that none outlives it for long.

A process that is killed leaves its folders behind, and what lies in them may be rows about
patients. The next one that makes such a folder by `make_folder` removes them.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from cluster.lake.leases import Holder

_PREFIX = "rayward-"
_OWNER = "owner.json"
"""Names the process a folder belongs to."""


def make_folder(kind: str) -> Path:
    """Make a folder ``rayward-<kind>-*`` of this process's own, of mode 0700; sweeps before."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
    _claim(folder)
    return folder


@contextmanager
def passing_folder(kind: str) -> Iterator[Path]:
    """A folder like `make_folder`'s for as long as the block lasts; nothing is swept before."""
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{kind}-") as folder:
        _claim(Path(folder))
        yield Path(folder)


def _claim(folder: Path) -> None:
    """Say in a folder that it is this process's own."""
    (folder / _OWNER).write_text(json.dumps(asdict(Holder.this_process())))


def sweep() -> None:
    """Remove the folders of processes that are gone.

    A process of another container that shares this folder can't be judged, and keeps its own.
    """
    for owner in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*/{_OWNER}"):
        # Another process may be sweeping too, somebody else's folder can't be read, and one that
        # is being made names nobody yet.
        with suppress(OSError, ValueError):
            if Holder.of(json.loads(owner.read_text())).is_known_dead:
                shutil.rmtree(owner.parent)
