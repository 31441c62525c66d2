"""The part of a lock that some packages need: an image holds no test tools.

Run by the image's build, before anything is installed: the standard library is all there is.
"""

import argparse
import re
import sys
from collections.abc import Collection
from pathlib import Path

_ENTRY = re.compile(r"\n(?=[A-Za-z0-9])")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_WANTED_BY = re.compile(r"^ +# +(?:via +)?(\S.*)$", re.MULTILINE)


def needed(lock: str, roots: Collection[str], without: Collection[str] = ()) -> str:
    """The entries of a lock, with their hashes, that ``roots`` need, directly or through others.

    A root is a package, or what a ``# via`` comment names, such as ``rayward (pyproject.toml)``;
    ``without`` leaves packages out that are loaded on demand only.

    Raises:
        ValueError: if a root or a package to leave out does not stand in the lock.
    """
    entries = {_NAME.match(one)[0]: one for one in _ENTRY.split(f"\n{lock}") if _NAME.match(one)}  # type: ignore[index]
    wanted_by = {name: set(_WANTED_BY.findall(entry)) for name, entry in entries.items()}
    known = set(entries).union(*wanted_by.values())
    unknown = sorted({*roots, *without} - known)
    if unknown:
        raise ValueError(f"not in the lock: {', '.join(unknown)}")
    found = set(roots)
    while more := {name for name, by in wanted_by.items() if by & found} - found - set(without):
        found |= more
    return "\n".join(entries[name].rstrip() for name in sorted(found & set(entries))) + "\n"


def main() -> None:
    """Write the part of a lock to stdout."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("lock", type=Path)
    parser.add_argument("roots", nargs="+", metavar="ROOT")
    parser.add_argument("--without", action="append", default=[], metavar="PACKAGE")
    given = parser.parse_args()
    sys.stdout.write(needed(given.lock.read_text(), given.roots, given.without))


if __name__ == "__main__":
    main()
