"""Source bytes for a shard's rows, exactly those that were planned."""

import os
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import pyarrow as pa
from botocore.exceptions import BotoCoreError
from obstore.exceptions import BaseError

from cluster.prepared import PreparedReader
from cluster.sources import local_etag
from cluster.storage import Storage, open_storage
from schemas.errors import RejectedImage
from schemas.plan import Blob, PreparedPixels
from schemas.reasons import RejectReason
from workers.content import content_id, content_of
from workers.pseudonyms import Pseudonymizer, is_masked

_READERS = 16
_NONE: Mapping[str, str] = MappingProxyType({})


class Fetcher:
    """Reads source files, from disk or S3, side by side."""

    def __init__(self, lake: str = "") -> None:
        """``lake`` is where prepared pixels lie; without it, all is read from sources.

        A fetcher travels to other processes as long as it has fetched nothing.
        """
        self._reader = PreparedReader(lake) if lake else None
        self._buckets: dict[str, Storage] = {}
        self._pseudonymizer: Pseudonymizer | None = None

    def fetch(self, rows: pa.Table, *, without: frozenset[int] = frozenset()) -> list[Blob]:
        """The bytes of each row's file, or why they can't be had.

        Rows of one file share one object. Rows in ``without`` and rows whose column ``read`` is
        false get no bytes. Rows need ``uri`` and ``etag``; a table without ``uri`` reads nothing.
        With ``image_id``, a file that was only touched or copied anew since is still the same.
        Where a column ``prepared`` names a file of the lake, its pixels take the source's place.
        """
        if "uri" not in rows.column_names:
            return [b""] * rows.num_rows
        uris, etags = rows["uri"].to_pylist(), rows["etag"].to_pylist()
        wanted = rows["read"].to_pylist() if "read" in rows.column_names else [True] * len(uris)
        prepared = self._prepared(rows, without)
        missing = [
            row
            for row, read in enumerate(wanted)
            if read and row not in without and row not in prepared
        ]
        ids = rows["image_id"].to_pylist() if "image_id" in rows.column_names else None
        contents = {uris[row]: content_of(ids[row]) for row in missing} if ids else _NONE
        blobs = self.fetch_files({uris[row]: etags[row] for row in missing}, contents)
        return [
            prepared.get(row) or blobs.get(uri, b"") if read else b""
            for row, (uri, read) in enumerate(zip(uris, wanted, strict=True))
        ]

    def _prepared(self, rows: pa.Table, without: frozenset[int]) -> dict[int, PreparedPixels]:
        """Pixels by row, of the rows whose prepared file has them."""
        if self._reader is None or "prepared" not in rows.column_names:
            return {}
        ids = rows["image_id"].to_pylist()
        of_file: dict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(rows["prepared"].to_pylist()):
            if path is not None and row not in without:
                of_file[path].append(row)
        pixels: dict[int, PreparedPixels] = {}
        for path, members in of_file.items():
            found = self._reader.read(path, [ids[row] for row in members])
            pixels.update({row: found[ids[row]] for row in members if ids[row] in found})
        return pixels

    def fetch_files(
        self, files: Mapping[str, str], contents: Mapping[str, str] = _NONE
    ) -> dict[str, Blob]:
        """The bytes of each file of uri and etag.

        With another etag a file is another one, unless ``contents`` has its `content_id`.
        """
        # Buckets and the key are opened before the threads start.
        places = {uri: self._place(uri) for uri in files}

        def read(uri: str) -> Blob:
            storage, path = places[uri]
            try:
                data, etag = _read_local(path) if storage is None else _read_object(storage, path)
            except RejectedImage as reject:
                return reject
            if etag != files[uri] and (uri not in contents or content_id(data) != contents[uri]):
                return RejectedImage(RejectReason.CHANGED_DURING_RUN)
            return data

        if len(files) <= 1:
            return {uri: read(uri) for uri in files}
        with ThreadPoolExecutor(_READERS) as readers:
            return dict(zip(files, readers.map(read, files), strict=True))

    def _place(self, uri: str) -> tuple[Storage | None, str]:
        """The store and the path of a catalogued uri; no store means the local disk."""
        if is_masked(uri):
            self._pseudonymizer = self._pseudonymizer or Pseudonymizer.from_key_file()
            uri = self._pseudonymizer.reveal(uri)
        parts = urlsplit(uri)
        if parts.scheme != "s3":
            return None, uri.removeprefix("file://")
        if parts.netloc not in self._buckets:
            self._buckets[parts.netloc] = open_storage(f"s3://{parts.netloc}")
        return self._buckets[parts.netloc], uri.removeprefix(f"s3://{parts.netloc}/")


def _read_local(path: str) -> tuple[bytes, str]:
    """A file and its etag."""
    try:
        with Path(path).open("rb") as file:
            data = file.read()
            # Asked of the open file after reading: a file rewritten meanwhile shows here.
            return data, local_etag(os.fstat(file.fileno()))
    except FileNotFoundError:
        raise RejectedImage(RejectReason.GONE_DURING_RUN) from None
    except OSError as error:
        raise RejectedImage(RejectReason.UNREADABLE, os.strerror(error.errno or 0)) from None


def _read_object(storage: Storage, path: str) -> tuple[bytes, str]:
    """An object and its etag."""
    try:
        data, entry = storage.get_tagged(path)
    except FileNotFoundError:
        raise RejectedImage(RejectReason.GONE_DURING_RUN) from None
    except (BaseError, BotoCoreError, OSError) as error:
        # Its message names the object, whose name may hold an identifier.
        raise RejectedImage(RejectReason.UNREADABLE, type(error).__name__) from None
    return data, entry.etag
