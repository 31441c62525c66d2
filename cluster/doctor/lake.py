"""Checks of the lake and of the store it lies in."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cluster.doctor.check import Check, State, fail, ok, warn
from cluster.doctor.machine import check_disk
from cluster.lake.layout import LAKE_FILE
from cluster.storage import Storage, open_storage
from schemas.errors import LakeError
from schemas.tables import FORMAT_VERSION

SKEW_SECONDS = 5.0
"""Clocks further apart than this muddle the order of runs, whose names begin with the time."""


def local_root(root: str) -> Path | None:
    """The lake's root as a path, if it lies on disk; the folder need not exist."""
    if "://" in root and not root.startswith("file://"):
        return None
    return Path(root.removeprefix("file://")).expanduser().absolute()


def check_lake(root: str) -> Iterator[Check]:
    """Whether the lake can be reached, read and written, one check after the other.

    A lake that is not there yet is not made. In one that is, a probe object is written and
    removed again.
    """
    path = local_root(root)
    if path is not None:
        yield check_disk("lake disk", path)
        if not path.is_dir():
            yield warn("lake", f"{root} is not there", "the first run makes it; or check --lake")
            return
    try:
        storage = open_storage(root)
        yield check_format(storage)
    except LakeError as error:
        yield fail("lake", error.what, error.remedy)
        return
    except Exception as error:  # noqa: BLE001 - stores fail in many ways, each of them a finding
        yield fail("lake", _said(root, error), "check --lake, the network and the credentials")
        return
    writing = check_writing(storage)
    yield writing
    if writing.state is State.OK:
        yield check_clock(storage)


def check_format(storage: Storage) -> Check:
    """Whether the root holds a lake of the format this version reads."""
    if storage.head(LAKE_FILE) is None:
        next(storage.list(), None)  # S3 calls an object of a missing bucket absent; a listing fails
        return warn(
            "lake",
            f"{storage.root} is reachable but holds no lake",
            "the first run makes it; or check --lake",
        )
    found = json.loads(storage.get(LAKE_FILE)).get("format")
    if found != FORMAT_VERSION:
        return fail(
            "lake",
            f"{storage.root} has format {found}, this version reads {FORMAT_VERSION}",
            "use the version that made it, or export its tables",
        )
    return ok("lake", f"{storage.root}, format {found}")


def check_writing(storage: Storage) -> Check:
    """Whether a second object of one name is refused, which leases and receipts rest on."""
    name = "lake writing"
    try:
        atomic = storage.creates_atomically
    except Exception as error:  # noqa: BLE001 - stores fail in many ways, each of them a finding
        return warn(
            name,
            _said(storage.root, error),
            "queries work; runs need the right to write and delete",
        )
    if not atomic:
        return fail(
            name,
            "this store overwrites an object that was to be created only if there was none",
            "use a store with conditional writes (If-None-Match) or a local disk",
        )
    return ok(name, "creates objects only if there are none")


def check_clock(storage: Storage) -> Check:
    """Whether this machine's clock agrees with the store's."""
    before = datetime.now(UTC)
    theirs = storage.now()
    after = datetime.now(UTC)
    # Some stores tell whole seconds only, and the answer took a while.
    ahead = (before - theirs).total_seconds() - 1.0
    behind = (theirs - after).total_seconds()
    if max(ahead, behind) > SKEW_SECONDS:
        side = "ahead of" if ahead > behind else "behind"
        return warn(
            "clock",
            f"{max(ahead, behind):.0f} s {side} the store's",
            "synchronise this machine's clock: runs are ordered by their time",
        )
    return ok("clock", "agrees with the store's")


def _said(root: str, error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{root}: {type(error).__name__}: {first[:200]}"
