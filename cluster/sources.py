"""Archives: the files below a local directory or an S3 prefix, sorted by path.

On S3 the order is the store's own, which is that of the names in all but directory buckets, so a
listing of any length is passed on page by page and never held whole.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError
from obstore.exceptions import BaseError

from cluster.storage import Entry, open_storage
from jobs.ingest.roots import source_root
from schemas.errors import LakeError, SourceError
from schemas.protocols import SourceFile


def local_etag(status: os.stat_result) -> str:
    """The entity tag of a local file: modification time in nanoseconds and size, in hex."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def list_source(uri: str) -> Iterator[SourceFile]:
    """List the files of an archive, sorted by path; hidden files and folders are left out.

    ``uri`` is a directory, one file, or ``s3://bucket/prefix``. Links to folders outside the
    directory are followed, each folder once; links to folders inside it are not, because their
    files are listed in their own place.

    Raises:
        SourceError: if there is nothing, or a folder can't be read. A folder that can't be read
            would otherwise look like one whose files are all gone.
    """
    root = source_root(uri)
    files = _list_s3(root) if root.startswith("s3://") else _list_local(root)
    found = False
    for file in files:
        found = True
        yield file
    if not found:
        raise SourceError("The source holds no files", where=root, remedy="check `source`")


def read_source(uri: str) -> bytes:
    """Read one file of a source.

    Raises:
        SourceError: if it can't be read.
    """
    root = source_root(uri)
    try:
        if not root.startswith("s3://"):
            return Path(root).read_bytes()
        folder, _, name = root.rpartition("/")
        return open_storage(folder).get(name)
    except FileNotFoundError:
        raise SourceError("The file does not exist", where=root) from None
    except LakeError as error:
        raise SourceError(error.what, where=root, got=error.got, remedy=error.remedy) from error
    except (OSError, BaseError, BotoCoreError) as error:
        raise SourceError("The file can't be read", where=root, got=_why(error)) from error


def _list_s3(root: str) -> Iterator[SourceFile]:
    bucket = urlsplit(root).netloc
    if not bucket:
        raise SourceError("The source names no bucket", got=root, remedy="write s3://bucket/prefix")
    prefix = root.removeprefix(f"s3://{bucket}").strip("/")
    try:
        # Opened at the bucket, where the fetching side opens it, so that paths agree.
        for entry in _without_folders(open_storage(f"s3://{bucket}").list(prefix)):
            path = entry.path.removeprefix(prefix).lstrip("/")
            if path and not any(part.startswith(".") for part in path.split("/")):
                yield SourceFile(f"s3://{bucket}/{entry.path}", path, entry.bytes, entry.etag)
    except LakeError as error:
        raise SourceError(error.what, where=root, got=error.got, remedy=error.remedy) from error
    except (OSError, BaseError, BotoCoreError) as error:
        raise SourceError(
            "The source can't be listed",
            where=root,
            got=_why(error),
            remedy="check the bucket's name, the credentials and AWS_ENDPOINT_URL",
        ) from error


def _without_folders(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Objects as S3 lists them, by name, less the empty ones that consoles make for folders.

    Their slash is taken away by the store's client, so they are known by what follows them.
    """
    last: Entry | None = None
    for entry in entries:
        if last and not (last.bytes == 0 and entry.path.startswith(f"{last.path}/")):
            yield last
        last = entry
    if last:
        yield last


def _list_local(root: str) -> Iterator[SourceFile]:
    try:
        status = Path(root).stat()
    except OSError as error:
        raise SourceError(
            "The source does not exist"
            if isinstance(error, FileNotFoundError)
            else "The source can't be read",
            where=root,
            got=_why(error),
            remedy="check the path, and that its disk is mounted",
        ) from None
    if stat.S_ISREG(status.st_mode):
        yield SourceFile(root, Path(root).name, status.st_size, local_etag(status))
        return
    real = str(Path(root).resolve())
    yield from _walk(root, "", real, {(status.st_dev, status.st_ino)})


def _walk(
    folder: str, below: str, real_root: str, seen: set[tuple[int, int]]
) -> Iterator[SourceFile]:
    """List a folder; ``below`` is its path relative to the source, with a trailing slash."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
            # A folder sorts as its files will: with the slash.
            shown.sort(key=lambda entry: f"{entry.name}/" if entry.is_dir() else entry.name)
        for entry in shown:
            path = f"{below}{entry.name}"
            if entry.is_dir():
                if _is_new_folder(entry, real_root, seen):
                    yield from _walk(entry.path, f"{path}/", real_root, seen)
            elif entry.is_file():
                status = entry.stat()
                yield SourceFile(entry.path, path, status.st_size, local_etag(status))
    except OSError as error:
        # Names below the source may be those of patients.
        depth = below.count("/")
        raise SourceError(
            "A folder of the source can't be read",
            where=folder[: len(folder) - len(below)] or "/",
            got=f"{_why(error)}, at depth {depth} below the source",
            remedy="find it with `find -L SOURCE -type d ! -readable`; make it readable, or move "
            "it out of the source",
        ) from None


def _is_new_folder(entry: "os.DirEntry[str]", real_root: str, seen: set[tuple[int, int]]) -> bool:
    """Whether to descend: a linked folder only once, and only if it lies outside the source."""
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if target == real_root or target.startswith(f"{real_root}/"):
            return False
    status = entry.stat()
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__
