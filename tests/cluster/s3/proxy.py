"""An HTTP proxy in front of an S3 server that makes some of its answers go wrong.

Faults are drawn from a seeded generator. Each fault is one a real store or network shows: a store
that asks for patience, a connection that breaks before the request arrived or after it was carried
out, a body that ends early, a slow answer. A gateway that drops headers is imitated too.
"""

import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("slow_down", "server_error", "reset_before", "reset_after", "truncated")
"""What may go wrong, each as often as the others.

``slow_down`` and ``server_error`` answer 503 and 500 without asking the server; ``reset_before``
breaks the connection without asking it, ``reset_after`` after it did what was asked; ``truncated``
ends the body half-way although the header promised all of it.
"""
CONFLICT = "conflict"
"""Answers 409 without asking the server, as S3 answers only to conditional puts."""
_ERRORS = {
    "slow_down": (503, "SlowDown"),
    "server_error": (500, "InternalError"),
    CONFLICT: (409, "ConditionalRequestConflict"),
}
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "server", "date"}


@dataclass
class Behaviour:
    """What the proxy does to requests; may be changed while it runs."""

    share: float = 0.0
    """Share of the requests that meet a fault."""
    faults: tuple[str, ...] = FAULTS
    seed: int = 0
    latency_s: tuple[float, float] = (0.0, 0.0)
    """Shortest and longest delay of an answer."""
    only: str = ""
    """A regular expression of ``METHOD /path``; other requests meet no fault."""
    most: int | None = None
    """How many faults there are at most."""
    dropped_headers: frozenset[str] = frozenset()
    """Headers of requests, in small letters, that never reach the server."""
    shortened: str = ""
    """A regular expression of ``METHOD /path``: bodies lose their last byte, as do the lengths."""
    refused_keys: set[str] = field(default_factory=set)
    """Access keys whose requests are answered with 403 ExpiredToken."""


@dataclass
class FaultyProxy:
    """A running proxy: where it listens, what it does and what it did."""

    endpoint: str
    behaviour: Behaviour
    met: Counter[str] = field(default_factory=Counter)
    """How often each fault was met."""
    requests: Counter[str] = field(default_factory=Counter)
    """How many requests of each method came."""
    seen: list[str] = field(default_factory=list)
    """Method and path with query of every request."""
    keys: list[str] = field(default_factory=list)
    """The access key of every signed request."""
    tokens: set[str] = field(default_factory=set)
    """The session tokens that came, the empty one included."""
    unsigned: list[str] = field(default_factory=list)
    """Path of every request whose signature does not cover its payload."""
    ranges: list[tuple[str, str]] = field(default_factory=list)
    """Path and `Range` header of every request that has one."""
    creations: list[str] = field(default_factory=list)
    """Path of every request that carries ``If-None-Match: *``."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._random.seed(self.behaviour.seed)

    def draw(self, line: str) -> tuple[str | None, float]:
        """The fault of a request, if any, and the seconds by which its answer is delayed."""
        now = self.behaviour
        with self._lock:
            delay_s = self._random.uniform(*now.latency_s)
            hit = self._random.random() < now.share
            fault = self._random.choice(now.faults)
            spent = now.most is not None and self.met.total() >= now.most
            if not hit or spent or not re.search(now.only, line):
                return None, delay_s
            self.met[fault] += 1
            return fault, delay_s

    def note(self, method: str, path: str, headers: dict[str, str]) -> str:
        """Remember a request; returns its access key."""
        key = re.search(r"Credential=([^/]+)/", headers.get("authorization", ""))
        with self._lock:
            self.requests[method] += 1
            self.seen.append(f"{method} {path}")
            if key:
                self.keys.append(key[1])
            if "x-amz-security-token" in headers:
                self.tokens.add(headers["x-amz-security-token"])
            if headers.get("x-amz-content-sha256") == "UNSIGNED-PAYLOAD":
                self.unsigned.append(path)
            if "range" in headers:
                self.ranges.append((path, headers["range"]))
            if headers.get("if-none-match") == "*":
                self.creations.append(path)
        return key[1] if key else ""

    def forget(self) -> None:
        """Forget what was seen so far."""
        with self._lock:
            for one in (self.met, self.requests, self.seen, self.keys):
                one.clear()
            for one in (self.tokens, self.unsigned, self.ranges, self.creations):
                one.clear()


@contextmanager
def faulty_proxy(upstream: str, behaviour: Behaviour) -> Iterator[FaultyProxy]:
    """Run a proxy in front of ``upstream`` on a free port of this machine."""
    server = _Server(("127.0.0.1", 0), _Handler)
    proxy = FaultyProxy(f"http://127.0.0.1:{server.server_address[1]}", behaviour)
    server.proxy, server.upstream = proxy, urlsplit(upstream).netloc
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients keep connections open
    request_queue_size = 128
    proxy: FaultyProxy
    upstream: str

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that gave up is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        proxy, line = self.server.proxy, f"{self.command} {self.path}"
        key = proxy.note(self.command, self.path, headers)
        if key in proxy.behaviour.refused_keys:
            self._fail(403, "ExpiredToken")
            return
        fault, delay_s = proxy.draw(line)
        time.sleep(delay_s)
        if fault in _ERRORS:
            self._fail(*_ERRORS[fault])
        elif fault == "reset_before":
            self._reset()
        else:
            self._forward(body, headers, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

    def _forward(self, body: bytes, headers: dict[str, str], fault: str | None) -> None:
        behaviour = self.server.proxy.behaviour
        kept = {
            name: value
            for name, value in headers.items()
            if name not in _HOP_BY_HOP | behaviour.dropped_headers | {"host"}
        }
        connection = HTTPConnection(self.server.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, kept)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, HTTPException):
            self._reset()
            return
        finally:
            connection.close()
        if fault == "reset_after":
            self._reset()
            return
        if behaviour.shortened and re.search(behaviour.shortened, f"{self.command} {self.path}"):
            data = data[:-1]
        self._send(answer, data, cut=fault == "truncated")

    def _send(self, answer: HTTPResponse, data: bytes, *, cut: bool) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        # An answer to HEAD has no body; its header tells the object's size.
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def _fail(self, status: int, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        """End the connection as a crash of the other side does, not as a farewell."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
