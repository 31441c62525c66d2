"""Object bytes on a local disk or on S3 through one interface.

Both kinds of root offer an atomic create-only put: on disk a staged file is hard-linked to its
name, on S3 the put carries ``If-None-Match: *``. Leases, plans and receipts rest on it.

obstore repeats requests that a store refused for now. What it does not repeat, since it can't know
that repeating does no harm, is repeated here: creations, deletions, and listings that broke off.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import LocalStore, MemoryStore, ObjectStore

from cluster.ranged_file import RangedFile
from cluster.s3 import S3Access
from schemas.errors import LakeError

if TYPE_CHECKING:
    from obstore import ObjectMeta

_PARALLEL_GETS = 16
_PART_BYTES = 8 * 2**20
"""An object larger than this goes to S3 in parts of this size, a few side by side."""
_PARALLEL_PARTS = 4
_DELAYS_S = (0.1, 0.5, 2.0, 5.0)
"""Seconds before each further attempt at what obstore gave up."""
_REFUSAL = re.compile(r"status code: 4(?!08|09|29)\d\d")
"""A client's error in HTTP, but for those that time may heal."""
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
STORE_ERRORS = (BaseError, OSError)
"""What a store that can't be reached raises."""

_T = TypeVar("_T")


class DamagedBodyError(GenericError):
    """The bytes that came are not those that the store speaks of, however often it was asked."""


@dataclass(frozen=True)
class Entry:
    """One object as the store lists it."""

    path: str
    """Path below the root."""
    bytes: int
    modified_at: datetime
    etag: str


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
            return bytes(result.bytes()), _entry(result.meta)

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
        """Write an object only if there is none; says whether this call made it."""
        in_doubt = False
        for delay_s in (*self._delays_s, None):
            try:
                # A multipart upload can't be conditional, and what is created this way is small.
                obstore.put(self._store, path, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                # An attempt whose answer got lost may be what is in the way.
                return in_doubt and self.get(path) == data
            except GenericError as error:
                if delay_s is None or _is_refusal(error):
                    raise
                in_doubt = True
                time.sleep(delay_s)
            else:
                return True
        raise AssertionError("the last attempt returns or raises")

    def claim(self, path: str, data: bytes) -> bool:
        """Like `put_new`, for data nobody else writes; says whether the object holds it.

        The client repeats a put whose answer got lost, and the first attempt refuses the second.
        """
        return self.put_new(path, data) or self.get(path) == data

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All objects below a folder, in no particular order.

        A listing that breaks off goes on after the last object it told: S3 lists by name.
        """
        last, delays = None, iter(self._delays_s)
        while True:
            try:
                for page in obstore.list(self._store, prefix or None, offset=last):
                    for one in page:
                        last = one["path"]
                        yield _entry(one)
            except GenericError as error:
                delay_s = next(delays, None)
                if delay_s is None or _is_refusal(error):
                    raise
                time.sleep(delay_s)
            else:
                return

    def head(self, path: str) -> Entry | None:
        """What the store says of an object, or nothing if there is none."""
        try:
            return _entry(self.persist(lambda: obstore.head(self._store, path)))
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
        for delay_s in self._delays_s:
            try:
                return action()
            except repeated as error:
                if _is_refusal(error):
                    raise
                time.sleep(delay_s)
        return action()

    @property
    def _is_remote(self) -> bool:
        return self.root.startswith("s3://")

    @property
    def _delays_s(self) -> tuple[float, ...]:
        """A disk that fails once fails again."""
        return _DELAYS_S if self._is_remote else ()

    def _is_whole(self, data: bytes, entry: Entry) -> bool:
        """Whether bytes are those of which the store spoke, as far as it told."""
        if len(data) != entry.bytes:
            return False
        told = _MD5.fullmatch(entry.etag) if self._is_remote and self._etags_are_md5 else None
        # No secret rests on it: the tag of an object put in one piece is the MD5 of its bytes.
        return told is None or hashlib.md5(data, usedforsecurity=False).hexdigest() == told[1]


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


def _is_refusal(error: Exception) -> bool:
    """Whether a store understood and refused, as for a bucket that is not there: no use to wait.

    obstore has no other sign of it than its text.
    """
    return isinstance(error, GenericError) and _REFUSAL.search(str(error)) is not None


def _entry(meta: "ObjectMeta") -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"] or "")
