"""Object bytes on a local disk or on S3 through one interface.

Both kinds of root offer an atomic create-only put: on disk a staged file is hard-linked to its
name, on S3 the put carries ``If-None-Match: *``. Leases, plans and receipts rest on it.

obstore repeats requests that a store refused for now. What it does not repeat, since it can't know
that repeating does no harm, is repeated here: creations, deletions, and listings that broke off.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import LocalStore, MemoryStore, ObjectStore

from cluster.listing import list_columns, list_entries
from cluster.objects import DamagedBodyError, Entry, is_whole
from cluster.ranged_file import RangedFile
from cluster.retries import DELAYS_S, is_refusal, repeat
from cluster.s3 import S3Access
from schemas.errors import LakeError

_PARALLEL_GETS = 16
_PART_BYTES = 8 * 2**20
"""An object larger than this goes to S3 in parts of this size, a few side by side."""
_PARALLEL_PARTS = 4
_COPIED_BYTES = 4 * 2**20
"""Of an object that is copied, this much is in memory at once."""
STORE_ERRORS = (BaseError, OSError)
"""What a store that can't be reached raises."""

_T = TypeVar("_T")


class Storage:
    """The objects below one root."""

    def __init__(
        self,
        root: str,
        store: ObjectStore,
        delta_options: Callable[[], dict[str, str]] = dict[str, str],
    ) -> None:
        self.root = root
        self._store, self._delta_options = store, delta_options
        self._etags_are_md5 = True

    def __repr__(self) -> str:
        return f"Storage({self.root!r})"

    @property
    def local_path(self) -> Path | None:
        """The root as a path, if it lies on disk."""
        return None if self._is_remote else Path(self.root)

    @property
    def delta_options(self) -> dict[str, str]:
        """Options deltalake needs to reach the same place, with credentials that hold now."""
        return self._delta_options()

    def delta_uri(self, table: str) -> str:
        """Where the Delta table of that name lies."""
        return f"{self.root}/tables/{table}"

    def get(self, path: str) -> bytes:
        """The bytes of an object.

        Raises:
            FileNotFoundError: if there is none.
            DamagedBodyError: if the bytes that come are not the object's, again and again.
        """
        return self.get_tagged(path)[0]

    def get_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes of an object from ``start`` up to ``end``, both within it.

        Raises:
            FileNotFoundError: if there is none.
            DamagedBodyError: if fewer or more bytes come, again and again.
        """

        def read() -> bytes:
            data = bytes(obstore.get_range(self._store, path, start=start, end=end))
            if len(data) != end - start:
                raise DamagedBodyError(f"{len(data)} bytes came instead of {end - start}")
            return data

        return self.persist(read) if end > start else b""

    def copy(self, path: str, target: Path, size: int) -> None:
        """Copy an object of ``size`` bytes into a file, a part at a time.

        Raises:
            FileNotFoundError: if there is none.
            DamagedBodyError: if fewer or more bytes come, again and again.
        """
        with target.open("wb") as file:
            for start in range(0, size, _COPIED_BYTES):
                file.write(self.get_range(path, start, min(start + _COPIED_BYTES, size)))

    def open(self, path: str) -> pa.NativeFile:
        """An object to read at any place: a file on disk mapped into memory, or read by ranges.

        Raises:
            FileNotFoundError: if there is none.
        """
        if self.local_path is not None:
            return pa.memory_map(str(self.local_path / path))
        entry = self.head(path)
        if entry is None:
            raise FileNotFoundError(path)
        read = partial(self.get_range, path)
        return pa.PythonFile(RangedFile(read, entry.bytes), mode="r")

    def get_many(self, paths: list[str]) -> list[bytes]:
        """The bytes of several objects, read side by side."""
        with ThreadPoolExecutor(_PARALLEL_GETS) as readers:
            return list(readers.map(self.get, paths))

    def get_tagged(self, path: str) -> tuple[bytes, Entry]:
        """The bytes of an object and what the store said of exactly these bytes.

        Raises:
            FileNotFoundError: if there is none.
            DamagedBodyError: if the bytes that come are not the object's, again and again.
        """

        def read() -> tuple[bytes, Entry]:
            result = obstore.get(self._store, path)
            return bytes(result.bytes()), Entry.of(result.meta)

        def read_whole() -> tuple[bytes, Entry]:
            data, entry = read()
            if self._is_whole(data, entry):
                return data, entry
            again, entry = read()
            if self._is_whole(again, entry):
                return again, entry
            known = self.head(path)
            if again != data or known is None or known.bytes != len(data):
                raise DamagedBodyError(f"{len(data)} bytes came that are not those of the object")
            # The same bytes twice, in full: the tag is no MD5, as of an object encrypted with a
            # key of the user's.
            self._etags_are_md5 = False
            return again, entry

        return self.persist(read_whole)

    def put(self, path: str, data: bytes) -> None:
        """Write an object, replacing what was there; a large one in parts, visible when whole."""
        self.persist(
            lambda: obstore.put(
                self._store, path, data, chunk_size=_PART_BYTES, max_concurrency=_PARALLEL_PARTS
            )
        )

    def put_new(self, path: str, data: bytes) -> bool:
        """Write an object only if there is none; says whether this call made it.

        Raises:
            AlreadyExistsError: if the store says again and again that there is one, and shows none.
        """
        in_doubt = False
        for delay_s in (*self._delays_s, None):
            try:
                # A multipart upload can't be conditional, and what is created this way is small.
                obstore.put(self._store, path, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                # S3 answers 409 as long as another request for the name is under way, one that
                # may come to nothing; obstore takes it for 412.
                if not self._is_remote or self.head(path) is not None:
                    # An attempt whose answer got lost may be what is in the way.
                    return in_doubt and self._holds(path, data)
                if delay_s is None:
                    raise
            except GenericError as error:
                if delay_s is None or is_refusal(error):
                    raise
                in_doubt = True
            else:
                return True
            time.sleep(delay_s)
        raise AssertionError("the last attempt returns or raises")

    def claim(self, path: str, data: bytes) -> bool:
        """Like `put_new`, for data nobody else writes; says whether the object holds it.

        The client repeats a put whose answer got lost, and the first attempt refuses the second.
        """
        return self.put_new(path, data) or self._holds(path, data)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All objects below a folder, in no particular order."""
        return list_entries(self._store, prefix, self._delays_s)

    def list_columns(self, prefix: str = "") -> Iterator[pa.RecordBatch]:
        """Like `list`, thousands at a time, with columns ``path``, ``e_tag`` and ``size``."""
        return list_columns(self._store, prefix, self._delays_s)

    def head(self, path: str) -> Entry | None:
        """What the store says of an object, or nothing if there is none."""
        try:
            return Entry.of(self.persist(lambda: obstore.head(self._store, path)))
        except FileNotFoundError:
            return None

    def delete(self, path: str) -> None:
        """Remove an object; one that is gone already is fine."""
        try:
            self.persist(lambda: obstore.delete(self._store, path))
        except FileNotFoundError:
            return

    def now(self) -> datetime:
        """The store's own clock, so that hosts with wrong clocks agree on ages."""
        probe = f"_leases/.clock-{uuid4().hex}"
        self.put(probe, b"")
        entry = self.head(probe)
        self.delete(probe)
        return entry.modified_at if entry else datetime.now(UTC)

    @cached_property
    def creates_atomically(self) -> bool:
        """Whether a second create-only put of one name is refused and changes nothing."""
        probe = f"_leases/.probe-{uuid4().hex}"
        try:
            made = self.claim(probe, b"1")
            return made and not self.put_new(probe, b"2") and self.get(probe) == b"1"
        finally:
            self.delete(probe)

    def persist(
        self,
        action: Callable[[], _T],
        repeated: type[Exception] | tuple[type[Exception], ...] = GenericError,
    ) -> _T:
        """Carry out what may be repeated without harm, and repeat it when the store fails.

        ``repeated`` are the errors by which a client tells that. On disk nothing is repeated.
        """
        return repeat(action, self._delays_s, repeated)

    @property
    def _is_remote(self) -> bool:
        return self.root.startswith("s3://")

    @property
    def _delays_s(self) -> tuple[float, ...]:
        """A disk that fails once fails again."""
        return DELAYS_S if self._is_remote else ()

    def _holds(self, path: str, data: bytes) -> bool:
        """Whether an object consists of these bytes; one that went meanwhile does not."""
        try:
            return self.get(path) == data
        except FileNotFoundError:
            return False

    def _is_whole(self, data: bytes, entry: Entry) -> bool:
        return is_whole(data, entry, tags_are_md5=self._is_remote and self._etags_are_md5)


def open_storage(uri: str) -> Storage:
    """Open a directory (made when missing) or ``s3://bucket/prefix``.

    S3 credentials, the region and a custom endpoint come from boto3's standard chain.

    Raises:
        LakeError: if the URI has another scheme, no S3 credentials are found, or the endpoint
            would be spoken to unencrypted.
    """
    scheme = urlsplit(uri).scheme
    if scheme == "s3":
        return _open_s3(uri.rstrip("/"))
    if scheme not in ("", "file"):
        raise LakeError(
            "No such kind of store", got=f"{scheme}://", remedy="use a directory or s3://bucket/…"
        )
    path = _local(uri)
    return Storage(str(path), LocalStore(path, mkdir=True))


def peek_storage(uri: str) -> Storage:
    """Open a root to look at it: a directory that is missing is not made, and reads as empty."""
    if urlsplit(uri).scheme not in ("", "file") or _local(uri).is_dir():
        return open_storage(uri)
    return Storage(str(_local(uri)), MemoryStore())


def _local(uri: str) -> Path:
    parts = urlsplit(uri)
    return Path(parts.path if parts.scheme else uri).expanduser().resolve()


def _open_s3(root: str) -> Storage:
    access = S3Access.standard()
    return Storage(root, access.store(root), access.delta_options)
