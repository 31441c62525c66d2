"""What stays here of a working directory, counted by the rule that keeps it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

COUNTED = 100_000
"""Files that are counted at most: an archive of millions must not hold a submission up."""


class Rule(StrEnum):
    """Why something stays, as the user is told."""

    IMAGES = "images, unless a .rayignore names them with !"
    NAMED = "sources, targets and lakes of the job file, and files of secrets"
    LAKES = "lakes"
    CACHES = "folders marked as caches"
    NEVER = "version control, environments, caches and secrets"
    LINKS = "links to folders"
    GIT = "ignored by .gitignore"
    RAY = "ignored by .rayignore"


@dataclass(frozen=True)
class Left:
    """A file or a folder that stays."""

    path: Path
    rule: Rule


@dataclass(frozen=True)
class LeftOut:
    """What one rule keeps here."""

    rule: Rule
    files: int
    bytes: int
    is_whole: bool = True
    """Whether all were counted."""


def count_left(left: Sequence[Left], limit: int = COUNTED) -> tuple[LeftOut, ...]:
    """What stays, by rule, the largest first; folders count with all the files below them.

    Links are not followed. What can't be read is not counted. From ``limit`` files on no more are.
    """
    files: dict[Rule, int] = {}
    sizes: dict[Rule, int] = {}
    cut: set[Rule] = set()
    for one in left:
        files.setdefault(one.rule, 0)
        for size in _sizes(one.path):
            if sum(files.values()) >= limit:
                cut.add(one.rule)
                break
            files[one.rule] += 1
            sizes[one.rule] = sizes.get(one.rule, 0) + size
    found = [
        LeftOut(rule, count, sizes.get(rule, 0), rule not in cut)
        for rule, count in files.items()
        if count or rule in cut
    ]
    return tuple(sorted(found, key=lambda one: (-one.bytes, one.rule)))


def _sizes(path: Path) -> Iterator[int]:
    """Bytes of a file, of a link none, or of each file below a folder."""
    if path.is_symlink():
        yield 0
    elif path.is_file():
        yield path.stat().st_size
    for folder, _, names in os.walk(path) if path.is_dir() and not path.is_symlink() else ():
        for name in names:
            try:
                yield (Path(folder) / name).lstat().st_size
            except OSError:  # it went meanwhile
                continue
