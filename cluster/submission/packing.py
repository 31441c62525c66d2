"""The working directory as one zip file for the cluster: code and small files, no data.

Data and lakes stay where they are; a cluster reads them from S3 or a shared mount. What
`.gitignore` and `.rayignore` name stays too, in every folder, and so do secrets and images. An
image goes only where a `.rayignore` names it with an exclamation mark: `!figures/logo.png`.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pathspec import GitIgnoreSpec

from cluster.lake.layout import LAKE_FILE
from cluster.submission.leftovers import Left, LeftOut, Rule, count_left
from cluster.submission.withheld import NEVER, holds_token, is_picture
from schemas.errors import UsageError

LIMIT = 100 * 2**20
"""Bytes of a package at most: Ray's dashboard takes no larger request."""
LARGE = 2**20
"""Files from this size on are told of before they go."""
_SHOWN = 5
_IGNORE_FILES: Mapping[str, Rule] = MappingProxyType(
    {".gitignore": Rule.GIT, ".rayignore": Rule.RAY}
)
_CACHE_MARK = "CACHEDIR.TAG"
"""A folder that holds this file is a cache (bford.info/cachedir)."""


@dataclass(frozen=True)
class PackedFile:
    """A file that goes with the package."""

    path: str
    """Relative to the working directory, with forward slashes."""
    bytes: int


@dataclass(frozen=True)
class Package:
    """A package as it was written."""

    file: Path
    bytes: int
    files: tuple[PackedFile, ...]
    left_out: tuple[LeftOut, ...] = ()
    """What stayed of the working directory, by rule."""

    @property
    def large(self) -> tuple[PackedFile, ...]:
        """The large files in it, the largest first."""
        return tuple(one for one in _largest(self.files) if one.bytes >= LARGE)


def pack(
    root: Path,
    target: Path,
    extra: Mapping[str, bytes],
    *,
    without: Sequence[Path] = (),
    token: str | None = None,
    limit: int = LIMIT,
) -> Package:
    """Write the package of a working directory; equal contents make equal bytes.

    Args:
        root: The working directory.
        target: The zip file to write.
        extra: Contents of further files by their path in the package.
        without: Folders and files that stay, such as a job's sources.
        token: The cluster's token, which no file may hold.
        limit: Bytes the package may have.

    Raises:
        UsageError: if there is no such directory, a file holds the token, or the package gets too
            large.
    """
    if not root.is_dir():
        raise UsageError("The working directory is no directory", got=str(root))
    found = list(_walk(root.resolve(), "", (), _resolved(without)))
    files = tuple(one for one in found if isinstance(one, PackedFile))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        for path, content in sorted(extra.items()):
            _add(package, path, content)
        for one in files:
            content = (root / one.path).read_bytes()
            if token and holds_token(content, token):
                raise _token_in(one.path)
            _add(package, one.path, content)
            if target.stat().st_size > limit:
                raise _too_large(root, files, limit)
    size = target.stat().st_size
    if size > limit:
        raise _too_large(root, files, limit)
    left = [one for one in found if isinstance(one, Left)]
    return Package(target, size, files, count_left(left))


def list_files(root: Path, without: Sequence[Path] = ()) -> Iterator[PackedFile]:
    """The files of a working directory that go, sorted by path; links to folders are not followed.

    Lakes, caches, secrets and images are left out wherever they lie.
    """
    found = _walk(root.resolve(), "", (), _resolved(without))
    yield from (one for one in found if isinstance(one, PackedFile))


def _resolved(without: Sequence[Path]) -> set[Path]:
    return {one.resolve() for one in without}


@dataclass(frozen=True)
class IgnoreFile:
    """An ignore file."""

    rule: Rule
    below: str
    """The folder it stands in."""
    spec: GitIgnoreSpec

    def ignores(self, path: str) -> bool | None:
        """Whether it lets a path stay; none where it says nothing of it."""
        return self.spec.check_file(path.removeprefix(self.below)).include


Rules = tuple[IgnoreFile, ...]
"""Ignore files from the root inwards."""


def _walk(root: Path, below: str, rules: Rules, without: set[Path]) -> Iterator[PackedFile | Left]:
    folder = root / below
    names = sorted(one.name for one in folder.iterdir())
    if below and (LAKE_FILE in names or _CACHE_MARK in names):
        yield Left(folder, Rule.LAKES if LAKE_FILE in names else Rule.CACHES)
        return
    rules = (*rules, *_rules_in(folder, below, names))
    for name in names:
        path, place = f"{below}{name}", folder / name
        rule = _rule_of(place, path, rules, without)
        if rule is not None:
            yield Left(place, rule)
        elif place.is_dir():
            yield from _walk(root, f"{path}/", rules, without)
        elif not place.is_file():  # a socket, or a broken link
            continue
        elif _is_named(path, rules) or not is_picture(place):
            yield PackedFile(path, place.stat().st_size)
        else:
            yield Left(place, Rule.IMAGES)


def _rule_of(place: Path, path: str, rules: Rules, without: set[Path]) -> Rule | None:
    """What keeps a file or a folder here, whatever it holds; none if nothing does.

    The innermost ignore file that says anything of a path decides.
    """
    if place.resolve() in without:
        return Rule.NAMED
    if place.is_dir():
        if place.is_symlink():
            return Rule.LINKS
        path = f"{path}/"
    if NEVER.match_file(path):
        return Rule.NEVER
    decided = _decision(path, rules)
    return decided[0] if decided and decided[1] else None


def _rules_in(folder: Path, below: str, names: Sequence[str]) -> Rules:
    return tuple(
        IgnoreFile(rule, below, GitIgnoreSpec.from_lines(_lines(folder / name)))
        for name, rule in _IGNORE_FILES.items()
        if name in names
    )


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8", "replace").splitlines()


def _is_named(path: str, rules: Rules) -> bool:
    """Whether a `.rayignore` lets a path go by name; git's words are not about clusters."""
    decided = _decision(path, tuple(one for one in rules if one.rule is Rule.RAY))
    return decided is not None and not decided[1]


def _decision(path: str, rules: Rules) -> tuple[Rule, bool] | None:
    """The ignore file that decides of a path, and whether it stays."""
    found = ((one.rule, one.ignores(path)) for one in reversed(rules))
    return next(((rule, stays) for rule, stays in found if stays is not None), None)


def _add(package: zipfile.ZipFile, path: str, content: bytes) -> None:
    # One fixed time and mode: the package's name is a hash of its bytes.
    entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    package.writestr(entry, content)


def _token_in(path: str) -> UsageError:
    return UsageError(
        "A file of the working directory holds the cluster's token",
        where=path,
        remedy="keep it elsewhere, as in ~/.ray: every job of the cluster can read the package",
    )


def _largest(files: Sequence[PackedFile]) -> list[PackedFile]:
    return sorted(files, key=lambda one: (-one.bytes, one.path))


def _too_large(root: Path, files: Sequence[PackedFile], limit: int) -> UsageError:
    whole = sum(one.bytes for one in files)
    shown = ", ".join(f"{one.path} ({mebibytes(one.bytes)})" for one in _largest(files)[:_SHOWN])
    return UsageError(
        f"The working directory makes a package above Ray's limit of {mebibytes(limit)}",
        where=str(root),
        got=f"{len(files):,} files, {mebibytes(whole)}; the largest are {shown}",
        remedy="name data in .gitignore or .rayignore, submit from a smaller folder "
        "(--working-dir), and put data on S3 or a shared mount",
    )


def mebibytes(size: int) -> str:
    """A number of bytes as text."""
    return f"{size / 2**20:,.1f} MiB"
