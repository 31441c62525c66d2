"""Object bytes on a local disk or on S3 through one interface.

Both kinds of root offer an atomic create-only put: on disk a staged file is hard-linked to its
name, on S3 the put carries ``If-None-Match: *``. Leases, plans and receipts rest on it.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import obstore
import pyarrow as pa
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store

from schemas.errors import LakeError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import RetryConfig

_RETRIES: "RetryConfig" = {
    "max_retries": 8,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15)},
}
_PARALLEL_GETS = 16
STORE_ERRORS = (BaseError, OSError)
"""What a store that can't be reached raises."""


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

    def __repr__(self) -> str:
        return f"Storage({self.root!r})"

    @property
    def local_path(self) -> Path | None:
        """The root as a path, if it lies on disk."""
        return None if self.root.startswith("s3://") else Path(self.root)

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
        """
        return bytes(obstore.get(self._store, path).bytes())

    def open(self, path: str) -> pa.NativeFile:
        """An object to read at any place: a file on disk mapped into memory, or fetched whole.

        Who reads a prepared file wants nearly all of it, and one request is the quickest way.

        Raises:
            FileNotFoundError: if there is none.
        """
        if self.local_path is not None:
            return pa.memory_map(str(self.local_path / path))
        return pa.BufferReader(self.get(path))

    def get_many(self, paths: list[str]) -> list[bytes]:
        """The bytes of several objects, read side by side."""
        with ThreadPoolExecutor(_PARALLEL_GETS) as readers:
            return list(readers.map(self.get, paths))

    def get_tagged(self, path: str) -> tuple[bytes, Entry]:
        """The bytes of an object and what the store said of exactly these bytes.

        Raises:
            FileNotFoundError: if there is none.
        """
        result = obstore.get(self._store, path)
        return bytes(result.bytes()), _entry(result.meta)

    def put(self, path: str, data: bytes) -> None:
        """Write an object, replacing what was there."""
        obstore.put(self._store, path, data)

    def put_new(self, path: str, data: bytes) -> bool:
        """Write an object only if there is none; says whether this call made it."""
        try:
            # A multipart upload can't be conditional, and everything created this way is small.
            obstore.put(self._store, path, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def claim(self, path: str, data: bytes) -> bool:
        """Like `put_new`, for data nobody else writes; says whether the object holds it.

        The client repeats a put whose answer got lost, and the first attempt refuses the second.
        """
        return self.put_new(path, data) or self.get(path) == data

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All objects below a folder, in no particular order."""
        for page in obstore.list(self._store, prefix or None):
            yield from (_entry(one) for one in page)

    def head(self, path: str) -> Entry | None:
        """What the store says of an object, or nothing if there is none."""
        try:
            return _entry(obstore.head(self._store, path))
        except FileNotFoundError:
            return None

    def delete(self, path: str) -> None:
        """Remove an object; one that is gone already is fine."""
        try:
            obstore.delete(self._store, path)
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
        """Whether a second create-only put of one name is refused."""
        probe = f"_leases/.probe-{uuid4().hex}"
        try:
            return self.put_new(probe, b"1") and not self.put_new(probe, b"2")
        finally:
            self.delete(probe)


def open_storage(uri: str) -> Storage:
    """Open a directory (made when missing) or ``s3://bucket/prefix``.

    S3 credentials and the region come from boto3's standard chain, a custom endpoint from
    ``AWS_ENDPOINT_URL``.

    Raises:
        LakeError: if the URI has another scheme or no S3 credentials are found.
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
    session = boto3.Session()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = session.region_name or "us-east-1"
    delta_options = partial(_delta_options, session, region, endpoint)
    delta_options()  # no credentials: said here, not at the first commit
    store = S3Store.from_url(
        root,
        config={"region": region, **({"endpoint": endpoint} if endpoint else {})},
        client_options={"allow_http": (endpoint or "").startswith("http:")},
        retry_config=_RETRIES,
        credential_provider=Boto3CredentialProvider(session),
    )
    return Storage(root, store, delta_options)


def _delta_options(session: boto3.Session, region: str, endpoint: str | None) -> dict[str, str]:
    credentials = session.get_credentials()
    if credentials is None:
        raise LakeError(
            "No S3 credentials found",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or an instance role",
        )
    frozen = credentials.get_frozen_credentials()
    options = {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        "AWS_SESSION_TOKEN": frozen.token,
        "AWS_REGION": region,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true" if (endpoint or "").startswith("http:") else None,
        "aws_conditional_put": "etag",
    }
    return {name: value for name, value in options.items() if value}


def _entry(meta: "ObjectMeta") -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"] or "")
