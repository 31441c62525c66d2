"""Checks of this machine: memory, shared memory and disk for Ray, and the pseudonym key."""

import os
import shutil
import stat
import tempfile
from importlib import metadata
from pathlib import Path

from cluster.doctor.check import Check, fail, ok, warn

GIB = 2**30
SCARCE_DISK = 10 * GIB
NO_DISK = 1 * GIB
FULL_FOR_RAY = 0.95
"""Share of its disk from which on Ray makes no more objects."""
SCARCE_MEMORY = 4 * GIB
SCARCE_SHARED_MEMORY = 1 * GIB


def check_ray(shared_memory: Path = Path("/dev/shm")) -> Check:  # noqa: S108 - Ray's own place
    """What an embedded Ray would find here."""
    cpus = len(os.sched_getaffinity(0))
    memory = usable_memory()
    detail = f"ray {metadata.version('ray')}, {cpus} CPUs, {memory / GIB:.1f} GiB of memory"
    if memory < SCARCE_MEMORY:
        return warn("ray", detail, "give it at least 4 GiB, or use a cluster (--address)")
    if shared_memory.is_dir():
        total = shutil.disk_usage(shared_memory).total
        if total < SCARCE_SHARED_MEMORY:
            return warn(
                "ray",
                f"{detail}, but only {total / GIB:.2f} GiB of {shared_memory}",
                "give the container more (docker run --shm-size=4g)",
            )
    return ok("ray", detail)


def usable_memory(limit_file: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of memory this machine has, or fewer where a container limits them."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = limit_file.read_text().strip()
    except OSError:
        return total  # no cgroup v2 here: nothing limits it
    return min(total, int(limit)) if limit.isdigit() else total


def check_disk(name: str, place: Path) -> Check:
    """Whether there is room to write at ``place``, which need not exist yet."""
    place = place.absolute()
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    detail = f"{usage.free / GIB:.1f} GiB free at {place}"
    if usage.free < NO_DISK:
        return fail(name, detail, "free some space")
    if usage.free < SCARCE_DISK:
        return warn(name, detail, "free some space before a large run")
    return ok(name, detail)


def check_temporary_disk(place: Path | None = None) -> Check:
    """Whether Ray, which keeps its files under the temporary folder, has room there."""
    place = place or Path(tempfile.gettempdir())
    check = check_disk("temporary disk", place)
    usage = shutil.disk_usage(place)
    if usage.used > FULL_FOR_RAY * (usage.used + usage.free):
        return fail(
            "temporary disk",
            f"{check.detail}; Ray makes no objects on a disk that is over 95 % full",
            "free some space, or set TMPDIR to another disk",
        )
    return check


def check_key(path: Path, lake: Path | None) -> Check:
    """Whether the key of the pseudonyms is where only its owner reads it.

    Args:
        path: The key file.
        lake: Root of a lake on disk, inside which the key must not lie.
    """
    if lake is not None and path.absolute().is_relative_to(lake.absolute()):
        return fail(
            "pseudonym key",
            f"{path} lies inside the lake: who copies the lake could undo its pseudonyms",
            "move it elsewhere and name it in RAYWARD_KEY_FILE",
        )
    try:
        found = path.stat()
    except FileNotFoundError:
        return warn(
            "pseudonym key",
            f"{path} is not there",
            "the first ingest on this machine makes it; a cluster needs a copy on every node",
        )
    except OSError as error:
        return fail("pseudonym key", f"{path}: {error.strerror}", "make it readable for yourself")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return fail(
            "pseudonym key",
            f"{path} has mode {mode:04o}: others on this machine may use it",
            f"chmod 600 {path}",
        )
    if not os.access(path, os.R_OK):
        return fail("pseudonym key", f"{path} can't be read", f"chmod 600 {path}")
    return ok("pseudonym key", f"{path}, mode {mode:04o}")
