"""S3 servers for rows that measure on S3: moto in a process of its own, and one that only lists."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3

from cluster.lake.snapshot import TableSnapshot
from cluster.storage import open_storage
from schemas.tables import TABLES

PAGE_KEYS = 1000
"""Objects of one page, as S3 gives at most."""
_PATIENCE_S = 60
_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def moto() -> Iterator[None]:
    """An S3 server in memory; the environment of the block points at it."""
    with _served([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p"]):
        yield


@contextmanager
def endless_listing(objects: int) -> Iterator[None]:
    """A server that has ``objects`` names in every bucket and answers listings at once.

    What it takes to list them is then the client's own time and that of a local connection.
    """
    command = [sys.executable, "-m", "benchmarks.s3_server", str(objects)]
    with _served(command):
        yield


def upload(folder: Path, root: str) -> int:
    """Copy a lake on disk to S3, without files that compaction replaced; returns the objects."""
    boto3.client("s3").create_bucket(Bucket=urlsplit(root).netloc)
    storage = open_storage(root)
    local = open_storage(str(folder))
    named = {
        folder / "tables" / table / file.path
        for table in TABLES
        for file in TableSnapshot(local, table).files
    }
    files = [
        one
        for one in folder.rglob("*")
        if one.is_file() and (one in named or one.suffix != ".parquet" or "_delta_log" in str(one))
    ]
    for one in files:
        storage.put(str(one.relative_to(folder)), one.read_bytes())
    return len(files)


@contextmanager
def _served(command: list[str]) -> Iterator[None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    silent = subprocess.DEVNULL
    root = Path(__file__).resolve().parent.parent
    server = subprocess.Popen([*command, str(port)], stdout=silent, stderr=silent, cwd=root)
    try:
        _wait_for(port)
        with _environment({**_SETTINGS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}):
            yield
    finally:
        server.terminate()
        server.wait()


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


class _Lister(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    objects = 0

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        first = int(asked.get("continuation-token", ["0"])[0])
        body = _page(first, self.objects)
        self.send_response_only(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@cache
def _page(first: int, objects: int) -> bytes:
    last = min(first + PAGE_KEYS, objects)
    rows = "".join(
        f"<Contents><Key>archive/person{number // 5:07d}/{number:09d}.png</Key>"
        "<LastModified>2026-11-01T02:00:00.000Z</LastModified>"
        f"<ETag>&quot;{number:032x}&quot;</ETag><Size>200000</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for number in range(first, last)
    )
    more = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < objects else ""
    return (
        '<?xml version="1.0"?><ListBucketResult '
        'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>archive</Name>'
        f"<IsTruncated>{str(last < objects).lower()}</IsTruncated>"
        f"<MaxKeys>{PAGE_KEYS}</MaxKeys>{rows}{more}</ListBucketResult>"
    ).encode()


def _serve(objects: int, port: int) -> None:
    for first in range(0, objects, PAGE_KEYS):  # made before anybody measures
        _page(first, objects)
    handler = type("_Handler", (_Lister,), {"objects": objects})
    ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
