"""The working directory as one zip file for the cluster: code and small files, no data.

Data and lakes stay where they are; a cluster reads them from S3 or a shared mount. What
`.gitignore` and `.rayignore` name stays too, in every folder, and so does what looks like a secret.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from cluster.lake.layout import LAKE_FILE
from schemas.errors import UsageError

LIMIT = 100 * 2**20
"""Bytes of a package at most: Ray's dashboard takes no larger request."""
LARGE = 2**20
"""Files from this size on are told of before they go."""
_SHOWN = 5
_IGNORE_FILES = (".gitignore", ".rayignore")
_CACHE_MARK = "CACHEDIR.TAG"
"""A folder that holds this file is a cache (bford.info/cachedir)."""
_NEVER = GitIgnoreSpec.from_lines(
    [
        # version control, environments, caches
        *(".git/", ".hg/", ".svn/", ".venv/", "venv/", "node_modules/", ".tox/", ".nox/"),
        *("__pycache__/", "*.py[cod]", ".*_cache/", ".cache/", ".hypothesis/", "*.egg-info/"),
        # secrets
        *(".env", ".env.*", "*.key", "*.pem", ".aws/", ".ssh/", ".ray/", ".netrc", "auth_token"),
        *("*credentials*.json", ".rayward/"),
    ]
)


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
    limit: int = LIMIT,
) -> Package:
    """Write the package of a working directory; equal contents make equal bytes.

    Args:
        root: The working directory.
        target: The zip file to write.
        extra: Contents of further files by their path in the package.
        without: Folders and files that stay, such as a job's sources.
        limit: Bytes the package may have.

    Raises:
        UsageError: if there is no such directory, or the package gets too large.
    """
    if not root.is_dir():
        raise UsageError("The working directory is no directory", got=str(root))
    files = tuple(list_files(root, without))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        for path, content in sorted(extra.items()):
            _add(package, path, content)
        for one in files:
            _add(package, one.path, (root / one.path).read_bytes())
            if target.stat().st_size > limit:
                raise _too_large(root, files, limit)
    size = target.stat().st_size
    if size > limit:
        raise _too_large(root, files, limit)
    return Package(target, size, files)


def list_files(root: Path, without: Sequence[Path] = ()) -> Iterator[PackedFile]:
    """The files of a working directory that go, sorted by path; links to folders are not followed.

    Lakes and caches are left out wherever they lie.
    """
    yield from _walk(root.resolve(), "", (), {one.resolve() for one in without})


Rules = tuple[tuple[str, GitIgnoreSpec], ...]
"""Ignore files from the root inwards: the folder each stands in, and what it says."""


def _walk(root: Path, below: str, rules: Rules, without: set[Path]) -> Iterator[PackedFile]:
    folder = root / below
    names = sorted(one.name for one in folder.iterdir())
    if below and (LAKE_FILE in names or _CACHE_MARK in names):
        return
    rules = (*rules, *_rules_in(folder, below, names))
    for name in names:
        path, place = f"{below}{name}", folder / name
        if place.resolve() in without or (place.is_dir() and place.is_symlink()):
            continue
        if _is_ignored(f"{path}/" if place.is_dir() else path, rules):
            continue
        if place.is_dir():
            yield from _walk(root, f"{path}/", rules, without)
        elif place.is_file():  # no sockets, no broken links
            yield PackedFile(path, place.stat().st_size)


def _rules_in(folder: Path, below: str, names: Sequence[str]) -> Rules:
    return tuple(
        (below, GitIgnoreSpec.from_lines(_lines(folder / name)))
        for name in _IGNORE_FILES
        if name in names
    )


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8", "replace").splitlines()


def _is_ignored(path: str, rules: Rules) -> bool:
    """Whether a path stays; the innermost ignore file that says anything of it decides."""
    if _NEVER.match_file(path):
        return True
    for below, spec in reversed(rules):
        include = spec.check_file(path.removeprefix(below)).include
        if include is not None:
            return include
    return False


def _add(package: zipfile.ZipFile, path: str, content: bytes) -> None:
    # One fixed time and mode: the package's name is a hash of its bytes.
    entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    package.writestr(entry, content)


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
