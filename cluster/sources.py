"""Archives: the files below a local directory or an S3 prefix, sorted by path."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from botocore.exceptions import BotoCoreError
from obstore.exceptions import BaseError

from cluster.s3_archives import list_archive, why
from cluster.storage import open_storage
from jobs.ingest.roots import source_root
from schemas.errors import LakeError, SourceError
from schemas.protocols import LISTING, SourceFile

_BATCH_FILES = 8_192
"""Files of a local listing that are held as Python objects at once."""

_T = TypeVar("_T")


def local_etag(status: os.stat_result) -> str:
    """The entity tag of a local file: modification time in nanoseconds and size, in hex."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def list_source(uri: str) -> Iterator[SourceFile]:
    """List the files of an archive, sorted by path; hidden files and folders are left out.

    ``uri`` is a directory, one file, or ``s3://bucket/prefix``. Links to folders outside the
    directory are followed, each folder once; links to folders inside it are not, because their
    files are listed in their own place.

    What is moved or deleted while the listing goes on may be listed or not.

    Raises:
        SourceError: if there is nothing, or a folder can't be read. A folder that can't be read
            would otherwise look like one whose files are all gone. On S3 also if there is a
            key that obstore can't name, as one with an empty part.
    """
    root = source_root(uri)
    files = _unpacked(list_archive(root)) if _is_s3(root) else _list_local(root)
    return _some(files, root)


def list_batches(uri: str) -> Iterator[pa.RecordBatch]:
    """Like `list_source`, thousands of files at a time; columns of `LISTING`.

    Raises:
        SourceError: as `list_source` does.
    """
    root = source_root(uri)
    batches = list_archive(root) if _is_s3(root) else _packed(_list_local(root))
    return _some((batch for batch in batches if batch.num_rows), root)


def _some(files: Iterator[_T], root: str) -> Iterator[_T]:
    """What is listed, which must not be nothing."""
    found = False
    for file in files:
        found = True
        yield file
    if not found:
        raise SourceError("The source holds no files", where=root, remedy="check `source`")


def _is_s3(root: str) -> bool:
    return root.startswith("s3://")


def _packed(files: Iterator[SourceFile]) -> Iterator[pa.RecordBatch]:
    while some := list(islice(files, _BATCH_FILES)):
        columns = (
            [_encoded(one.uri) for one in some],
            [_encoded(one.path) for one in some],
            [one.bytes for one in some],
            [one.etag for one in some],
        )
        arrays = [
            pa.array(column, kind) for column, kind in zip(columns, LISTING.types, strict=True)
        ]
        yield pa.record_batch(arrays, schema=LISTING)


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _unpacked(batches: Iterator[pa.RecordBatch]) -> Iterator[SourceFile]:
    for batch in batches:
        for uri, path, size, etag in zip(*(column.to_pylist() for column in batch), strict=True):
            yield SourceFile(uri.decode(), path.decode(), size, etag)


def read_source(uri: str) -> bytes:
    """Read one file of a source.

    Raises:
        SourceError: if it can't be read.
    """
    root = source_root(uri)
    with _told(root):
        if not _is_s3(root):
            return Path(root).read_bytes()
        folder, _, name = root.rpartition("/")
        return open_storage(folder).get(name)


def head_source(uri: str) -> SourceFile:
    """What there is to say of one file of a source without reading it.

    Raises:
        SourceError: if there is no such file, or it can't be looked at.
    """
    root = source_root(uri)
    folder, _, name = root.rpartition("/")
    with _told(root):
        if not _is_s3(root):
            status = Path(root).stat()
            return SourceFile(root, name, status.st_size, local_etag(status))
        entry = open_storage(folder).head(name)
        if entry is None:
            raise FileNotFoundError(name)
        return SourceFile(root, name, entry.bytes, entry.etag)


@contextmanager
def _told(root: str) -> Iterator[None]:
    """Say of what goes wrong with a file what may be said."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError("The file does not exist", where=root) from None
    except LakeError as error:
        raise SourceError(error.what, where=root, got=error.got, remedy=error.remedy) from error
    except (OSError, BaseError, BotoCoreError) as error:
        raise SourceError("The file can't be read", where=root, got=why(error)) from error


def _list_local(root: str) -> Iterator[SourceFile]:
    try:
        status = Path(root).stat()
    except OSError as error:
        raise SourceError(
            "The source does not exist"
            if isinstance(error, FileNotFoundError)
            else "The source can't be read",
            where=root,
            got=why(error),
            remedy="check the path, and that its disk is mounted",
        ) from None
    if stat.S_ISREG(status.st_mode):
        yield SourceFile(root, Path(root).name, status.st_size, local_etag(status))
        return
    yield from _walk(_Tree(root, status), root, "")


class _Tree:
    """The folder that is listed, and the folders below it that were met."""

    def __init__(self, root: str, status: os.stat_result) -> None:
        self._root, self._real_root = root, str(Path(root).resolve())
        self._identity = _identity(status)
        self._seen = {self._identity}

    def is_new(self, entry: "os.DirEntry[str]") -> bool:
        """Whether to descend: a linked folder only once, and only if it lies outside the source."""
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if target == self._real_root or target.startswith(f"{self._real_root}/"):
                return False
        identity = _identity(entry.stat())
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True

    def pass_over(self, error: FileNotFoundError) -> None:
        """Let go what was moved or deleted during the listing.

        Raises:
            OSError: if the source itself went, as with its disk: its files did not.
        """
        if _identity(Path(self._root).stat()) != self._identity:
            raise error


def _walk(tree: _Tree, folder: str, below: str) -> Iterator[SourceFile]:
    """List a folder; ``below`` is its path relative to the source, with a trailing slash."""
    try:
        for entry in _shown(tree, folder):
            path = f"{below}{entry.name}"
            try:
                is_folder = entry.is_dir() and tree.is_new(entry)
                status = entry.stat() if entry.is_file() else None
            except FileNotFoundError as error:
                tree.pass_over(error)
                continue
            if is_folder:
                yield from _walk(tree, entry.path, f"{path}/")
            elif status:
                yield SourceFile(entry.path, path, status.st_size, local_etag(status))
    except OSError as error:
        # Names below the source may be those of patients.
        depth = below.count("/")
        raise SourceError(
            "A folder of the source can't be read",
            where=folder[: len(folder) - len(below)] or "/",
            got=f"{why(error)}, at depth {depth} below the source",
            remedy="find it with `find -L SOURCE -type d ! -readable`; make it readable, or move "
            "it out of the source",
        ) from None


def _shown(tree: _Tree, folder: str) -> "list[os.DirEntry[str]]":
    """What a folder holds, sorted, less what is hidden; nothing if the folder went."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError as error:
        tree.pass_over(error)
        return []
    # A folder sorts as its files will: with the slash.
    return sorted(shown, key=lambda entry: f"{entry.name}/" if entry.is_dir() else entry.name)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
