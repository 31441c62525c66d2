"""Clusters of several nodes on this machine, whose nodes and network can be taken away.

`Machines` makes each node a machine of its own as far as Linux lets it: its own network card on a
common switch, its own processes, its own host name, memory and Ray folder. Killing one is pulling
its plug: nobody says goodbye, and no connection is closed. `Raylets` makes do with several raylets
in one network, for machines that permit no name spaces.

Every node on one host counts the whole host's memory, so each is told its own.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._private.node import Node
from ray._raylet import Config  # type: ignore[attr-defined]  # compiled, without types
from ray.cluster_utils import Cluster

from tests.cluster.nodes.node import UP

BIN = Path(sys.executable).parent
CHECKOUT = Path(__file__).resolve().parents[3]
PACE = Path(__file__).with_name("pace")
PORT = 6379
MEMORY = 1_500_000_000
STORE = 100_000_000
START_S = 300.0
_UNSHARE = (
    *("setpriv", "--pdeathsig=KILL"),
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--uts"),
)
"""Starts a machine: when this process ends so does the machine, with all that runs on it."""
_PATIENCE = {
    "RAY_raylet_start_wait_time_s": "240",
    "RAY_agent_register_timeout_ms": "240000",
    "RAY_gcs_rpc_server_connect_timeout_s": "30",
}
"""A busy host is no reason to give a node up while it starts."""
_STAY = "while :; do sleep 3600; done"
"""A shell that waits also buries orphans, as the first process of a machine must."""


def why_no_machines() -> str:
    """What keeps this machine from pretending to be several; empty if nothing does."""
    if sys.platform != "linux":
        return "Linux name spaces are needed"
    needed = ("setpriv", "unshare", "nsenter", "ip", "mount")
    missing = [one for one in needed if not shutil.which(one)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    script = (
        "ip link add br9 type bridge && ip link add ve9 type veth peer name ve8 && hostname x && "
        "mount -t tmpfs tmpfs /dev/shm"
    )
    tried = subprocess.run([*_UNSHARE, "sh", "-c", script], capture_output=True, check=False)
    return f"not permitted: {tried.stderr.decode().strip()}" if tried.returncode else ""


def plain_environment() -> dict[str, str]:
    """This process's environment without what it says of Ray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", **_PATIENCE}


def paced(folder: Path, name: str, pace_s: float) -> dict[str, str]:
    """What makes the shards of a node last so long at least."""
    return {"PYTHONPATH": str(PACE), "PACE_S": str(pace_s), "PACE_HOLD": str(hold_of(folder, name))}


def hold_of(folder: Path, name: str) -> Path:
    """While this file exists, the node writes nothing; see `pace/sitecustomize.py`."""
    return folder / f"hold-{name}"


@dataclass
class Machine:
    """A machine of its own, until it is killed."""

    name: str
    process: "subprocess.Popen[bytes]"
    node: "subprocess.Popen[bytes] | None" = None
    """Its Ray."""

    @property
    def pid(self) -> int:
        """Its first process, as this machine knows it."""
        (first,) = psutil.Process(self.process.pid).children()
        return first.pid

    def command(self, *command: str) -> list[str]:
        """A command as it is started on this machine; it ends with it."""
        spaces = ("--net", "--pid", "--mount", "--uts")
        return ["nsenter", f"--target={self.pid}", *spaces, "--", *command]

    def kill(self) -> None:
        """Pull the plug."""
        self.process.kill()
        self.process.communicate(timeout=30)
        if self.node:
            self.node.wait(30)


class Machines:
    """A cluster of machines on a switch of their own; a dashboard is on the head's loopback."""

    def __init__(self, folder: Path, pace_s: float, *, dashboard: bool = False) -> None:
        self.folder, self._pace_s, self._dashboard = folder, pace_s, dashboard
        # Sockets lie below it, and their names are limited.
        self._ray = Path(tempfile.mkdtemp(prefix="rwm-"))
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment |= {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:8265"}
        self._machines: dict[str, Machine] = {}
        self._count = 0
        self._switch = self._boot("switch")
        try:
            self._in_switch("ip", "link", "add", "br0", "type", "bridge")
            self._in_switch("ip", "addr", "add", "10.77.0.254/24", "dev", "br0")
            self._in_switch("ip", "link", "set", "br0", "up")
            self.start_head()
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> str:
        """Where drivers find the cluster, on any machine."""
        return f"10.77.0.1:{PORT}"

    def on_head(self, folder: Path, *command: str) -> list[str]:
        return self._machines["head"].command("env", f"--chdir={folder}", *command)

    def start_head(self) -> None:
        """Start a head, of an earlier one's name and address."""
        self._count += 1
        head = self._connect("head", "10.77.0.1")
        self._start_ray(
            head,
            num_cpus=0,
            node_ip_address="10.77.0.1",
            gcs_server_port=PORT,
            include_dashboard=self._dashboard,
            dashboard_host="127.0.0.1",
            dashboard_port=8265,
            temp_dir=str(self._ray),
        )
        if self._dashboard:
            self._await_dashboard(head)

    def add(self, name: str) -> None:
        self._count += 1  # the head was the first
        address = f"10.77.0.{self._count}"
        worker = self._connect(name, address)
        self._start_ray(worker, num_cpus=1, node_ip_address=address, gcs_address=self.address)

    def kill(self, name: str) -> None:
        self._machines.pop(name).kill()

    def cut(self, name: str) -> None:
        self._in_switch("ip", "link", "set", name, "down")

    def heal(self, name: str) -> None:
        self._in_switch("ip", "link", "set", name, "up")

    def stop(self) -> None:
        for machine in [*self._machines.values(), self._switch]:
            machine.kill()
        shutil.rmtree(self._ray, ignore_errors=True)

    def _boot(self, name: str) -> Machine:
        """A machine that has nothing but a loopback."""
        own = f"hostname {name} && ip link set lo up"
        own += f" && mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs {self._ray}"
        started = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", f"{own} && echo up; {_STAY}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert started.stdout is not None and started.stdout.readline() == b"up\n", name
        return Machine(name, started)

    def _connect(self, name: str, address: str) -> Machine:
        """A machine on the switch."""
        machine = self._machines[name] = self._boot(name)
        ends = (name, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
        self._in_switch("ip", "link", "add", *ends)
        self._in_switch("ip", "link", "set", name, "master", "br0", "up")
        for line in (
            f"ip addr add {address}/24 dev eth0",
            "ip link set eth0 up",
            "ip route add default via 10.77.0.254",
        ):
            _call(machine.command(*line.split()))
        return machine

    def _in_switch(self, *command: str) -> None:
        _call(["nsenter", f"--target={self._switch.pid}", "--net", "--", *command])

    def _start_ray(self, machine: Machine, **settings: object) -> None:
        """Start a node and wait until the others know it."""
        settings |= {"memory": MEMORY, "object_store_memory": STORE}
        settings |= {"min_worker_port": 0, "max_worker_port": 0, "num_gpus": 0}
        command = (sys.executable, "-m", "tests.cluster.nodes.node", json.dumps(settings))
        log = self.folder / f"ray-{self._count}-{machine.name}.log"
        with log.open("wb") as file:
            machine.node = subprocess.Popen(
                machine.command(*command),
                cwd=CHECKOUT,
                env=plain_environment()
                | self.environment
                | {"PATH": f"{BIN}:{os.environ['PATH']}"}
                | paced(self.folder, machine.name, self._pace_s),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + START_S
        while UP not in (said := log.read_text()):
            assert machine.node.poll() is None and time.monotonic() < deadline_s, said
            time.sleep(0.1)

    def _await_dashboard(self, head: Machine) -> None:
        """Wait until the head takes submissions."""
        there = "import socket; socket.create_connection(('127.0.0.1', 8265), timeout=5).close()"
        deadline_s = time.monotonic() + START_S
        while subprocess.run(
            head.command(sys.executable, "-S", "-c", there), stderr=subprocess.DEVNULL, check=False
        ).returncode:
            assert time.monotonic() < deadline_s, "the dashboard did not start"
            time.sleep(0.5)


class Raylets:
    """A cluster of raylets in one network. A cut worker is one whose processes stand still."""

    def __init__(self, folder: Path, pace_s: float) -> None:
        self.folder, self._pace_s = folder, pace_s
        self._ray = Path(tempfile.mkdtemp(prefix="rwn-"))
        (self._ray / "ray").mkdir()
        # The ports are open to the network. One token for all tests: Ray reads it once a process.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}
        self.environment = {"RAY_TMPDIR": str(self._ray), **token}
        self._nodes: dict[str, Node] = {}
        self._still: dict[str, list[psutil.Process]] = {}
        with self._surroundings():
            self._cluster = Cluster(
                initialize_head=True,
                head_node_args={"include_dashboard": False, **self._settings("head", 0)},
            )

    def _settings(self, name: str, cpus: int) -> dict[str, Any]:
        sizes = {"num_cpus": cpus, "memory": MEMORY, "object_store_memory": STORE}
        return {**sizes, "env_vars": paced(self.folder, name, self._pace_s)}

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What this process, and the nodes that it starts, must know of the cluster."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            Config.initialize("")  # Ray read the environment when it was imported
            yield
        Config.initialize("")

    @property
    def address(self) -> str:
        """Where drivers find the cluster."""
        return str(self._cluster.address)

    def on_head(self, folder: Path, *command: str) -> list[str]:
        return ["env", f"--chdir={folder}", *command]

    def add(self, name: str) -> None:
        with self._surroundings():
            self._nodes[name] = self._cluster.add_node(**self._settings(name, 1))

    def kill(self, name: str) -> None:
        with self._surroundings():
            self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def cut(self, name: str) -> None:
        raylet = psutil.Process(self._nodes[name].all_processes["raylet"][0].process.pid)
        self._still[name] = [raylet, *raylet.children(recursive=True)]
        for one in self._still[name]:
            one.send_signal(signal.SIGSTOP)

    def heal(self, name: str) -> None:
        for one in self._still.pop(name):
            if one.is_running():
                one.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for name in list(self._still):
            self.heal(name)
        with self._surroundings():
            self._cluster.shutdown()
        shutil.rmtree(self._ray, ignore_errors=True)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
