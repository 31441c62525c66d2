"""How much memory decoded images may take."""

from pathlib import Path

import psutil

SHARE = 0.5
"""Of the memory that is left on a machine, what the images of all its ranks may take."""
CGROUP = Path("/sys/fs/cgroup")


def image_bytes(stated: int, world_size: int, cgroup: Path = CGROUP) -> int:
    """Bytes one rank may keep images in: those stated, or fewer where memory is short.

    Ranks may all be on this machine, so each takes its part of the share.
    """
    return min(stated, int(SHARE * _left(cgroup)) // world_size)


def _left(cgroup: Path) -> int:
    """Bytes this process may still use: of the machine, and of the container it may run in."""
    machine = int(psutil.virtual_memory().available)
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        cached = _reclaimable((cgroup / "memory.stat").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return machine  # no cgroup v2, or one that limits nothing: "max" is no number
    return max(min(machine, limit - used + cached), 0)


def _reclaimable(stat: str) -> int:
    """Bytes of files that are only cached, and given back when memory is short."""
    values = dict(line.split() for line in stat.splitlines())
    return int(values.get("inactive_file", 0))
