"""A Ray cluster of one node for tests of submissions: with a token, on free ports, stopped by its
own handle.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

BIN = Path(sys.executable).parent
PORTS = (
    "port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
    "metrics-export-port", "ray-client-server-port", "runtime-env-agent-port",
    "object-manager-port", "node-manager-port",
)  # fmt: skip


@dataclass(frozen=True)
class Head:
    """A head node that this test started."""

    url: str
    token: str
    token_file: Path
    ports: dict[str, int]
    process: psutil.Process

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to reach it."""
        return {
            "RAY_API_SERVER_ADDRESS": self.url,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
        }

    def family(self) -> list[psutil.Process]:
        """The head's process and all below it."""
        return [self.process, *self.process.children(recursive=True)]


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A head node with two CPUs that wants a token."""
    # Ray puts sockets below it, and their names are limited.
    folder = Path(tempfile.mkdtemp(prefix="rw-"))
    token_file = folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(secrets.token_hex(32))
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    started = _start(
        folder / "log",
        token_file,
        *(BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--memory=2000000000"),
        *("--object-store-memory=200000000", f"--temp-dir={folder}"),
        *("--dashboard-host=127.0.0.1", "--include-dashboard=true"),
        *(f"--{name}={port}" for name, port in ports.items()),
    )
    process = psutil.Process(started.pid)
    found = Head(
        f"http://127.0.0.1:{ports['dashboard-port']}",
        token_file.read_text(),
        token_file,
        ports,
        process,
    )
    try:
        _await(found.url, started)
        yield found
    finally:
        _stop(started)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def other_node(head: Head, hidden: Path) -> Iterator[None]:
    """A second node that sees an empty folder in the place of ``hidden``, as another host would.

    Skips the test where mounts can't be made.
    """
    made = ["unshare", "--mount", "--propagation", "private", "--kill-child"]
    script = f"mount -t tmpfs tmpfs '{hidden}' && exec \"$@\""
    trial = subprocess.run([*made, "sh", "-c", script, "-", "true"], check=False)
    if trial.returncode:
        pytest.skip("mounting needs rights that this user has not")
    started = _start(
        head.token_file.with_name("other-log"),
        head.token_file,
        *(*made, "--fork", "sh", "-c", script, "-"),
        *(BIN / "ray", "start", "--block", f"--address=127.0.0.1:{head.ports['port']}"),
        *("--num-cpus=1", "--memory=500000000", "--object-store-memory=80000000"),
    )
    try:
        _await_nodes(head, 2)
        yield
    finally:
        _stop(started)


def _start(log: Path, token_file: Path, *command: str | Path) -> "subprocess.Popen[bytes]":
    with log.open("w") as stream:
        return subprocess.Popen(
            command,
            env=_environment(token_file),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _await_nodes(head: Head, count: int) -> None:
    headers = {"Authorization": f"Bearer {head.token}"}
    deadline_s = time.monotonic() + 90
    while time.monotonic() < deadline_s:
        answer = requests.get(f"{head.url}/nodes?view=summary", headers=headers, timeout=20)
        states = [one["raylet"].get("state") for one in answer.json()["data"]["summary"]]
        if states.count("ALIVE") == count:
            return
        time.sleep(0.3)
    pytest.fail(f"there are no {count} nodes")


def _environment(token_file: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        "PATH": f"{BIN}:{kept.get('PATH', '')}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _await(url: str, started: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 90
    while time.monotonic() < deadline_s:
        assert started.poll() is None, "the head ended"
        try:
            if requests.get(f"{url}/api/authentication_mode", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    pytest.fail("the head did not start")


def _stop(started: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(started.pid).children(recursive=True)
    started.send_signal(signal.SIGTERM)
    try:
        started.wait(30)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait(30)
    _gone, alive = psutil.wait_procs(family, timeout=10)
    for one in alive:
        one.kill()
    psutil.wait_procs(alive, timeout=10)
