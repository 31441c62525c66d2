"""The systemd units: systemd's own checks where it is installed, and our rules everywhere."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from ray.autoscaler._private.constants import AUTOSCALER_METRIC_PORT
from ray.dashboard.consts import DASHBOARD_METRIC_PORT

from tests.cluster.deploy.manifests import CHECKOUT
from tests.cluster.deploy.units import NAMES, RULES, VM, Unit, command, environment, parse, read


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units as they would lie on a machine, but for where the programs are."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here: the units are checked by rules alone")
    folder = str(Path(sys.executable).parent)
    for name in NAMES:
        text = (VM / f"rayward-{name}").read_text()
        text = text.replace("/opt/rayward/.venv/bin", folder).replace(
            "=/opt/rayward", f"={CHECKOUT}"
        )
        (tmp_path / f"rayward-{name}").write_text(text)
    return [str(tmp_path / f"rayward-{name}") for name in NAMES]


def test_systemd_finds_nothing_wrong(installed: list[str]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *installed],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "rayward" in line]
    assert (done.returncode, ours) == (0, [])


def test_systemd_calls_the_services_well_locked(installed: list[str]) -> None:
    """An exposure of 2.5 of 10 at most, by systemd's own measure."""
    for path in installed:
        if path.endswith(".service"):
            done = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", "--threshold=25", path],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("name", RULES)
def test_no_rule_is_broken(name: str) -> None:
    assert list(RULES[name](read())) == []


def test_every_variable_of_the_units_has_a_value_in_the_settings() -> None:
    used = {
        name
        for unit in read().values()
        for line in unit.get("Service", {}).get("ExecStart", [])
        for name in re.findall(r"\$\{(\w+)\}", line)
    }
    assert used <= set(environment())
    assert used == {
        "NODE_IP", "HEAD_IP", "CPUS", "GPUS", "MEMORY_BYTES", "OBJECT_STORE_BYTES", "LAKE",
    }  # fmt: skip


def test_the_firewall_fences_every_port_that_is_not_on_loopback() -> None:
    rules = (VM / "rayward.nft").read_text()
    nodes, metrics, dropped = (
        _ports(re.search(pattern, rules)[1])  # type: ignore[index]
        for pattern in (
            r"saddr @nodes tcp dport \{(.+)\} accept",
            r"saddr @prometheus tcp dport \{(.+)\} accept",
            r"\n *tcp dport \{(.+)\} drop",
        )
    )
    fixed = {6379}  # which a worker names in the head's address
    for name in ("head.service", "worker.service"):
        flags = dict(one.split("=") for one in command(read()[name]) if "port=" in one)
        flags.pop("--dashboard-port", None)
        lowest, highest = int(flags.pop("--min-worker-port")), int(flags.pop("--max-worker-port"))
        fixed |= {int(one) for one in flags.values()} | set(range(lowest, highest + 1))
    unnamed = {AUTOSCALER_METRIC_PORT, DASHBOARD_METRIC_PORT}  # of the head, by no flag
    assert metrics == {8080} | unnamed
    assert dropped == nodes | metrics
    assert fixed | unnamed == dropped


def test_the_kernel_takes_the_firewalls_rules() -> None:
    if shutil.which("nft") is None or shutil.which("unshare") is None:
        pytest.skip("no nft here: the firewall's rules are checked by their ports alone")
    apart = ["unshare", "--map-root-user", "--net"]  # a network of the test's own
    if subprocess.run(
        [*apart, "nft", "list", "tables"], capture_output=True, check=False
    ).returncode:
        pytest.skip("no network of one's own to be had here")
    done = subprocess.run(
        [*apart, "nft", "--file", VM / "rayward.nft"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def _ports(text: str) -> set[int]:
    ranges = [one.strip().split("-") for one in text.split(",")]
    return {port for one in ranges for port in range(int(one[0]), int(one[-1]) + 1)}


WRONG = [
    ("token", "head.service", "Environment=RAY_AUTH_MODE=token", ""),
    ("token", "worker.service", "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
    ("token", "worker.service", "LoadCredential=ray-token:/etc/rayward/ray-token", ""),
    ("token", "nightly.service", "%d/pseudonym.key", "/etc/rayward/pseudonym.key"),
    ("token", "head.service", "RAY_USAGE_STATS_ENABLED=0", "RAY_AUTH_TOKEN=abc"),
    ("binding", "head.service", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
    ("binding", "head.service", "--dashboard-host=127.0.0.1", ""),
    ("binding", "worker.service", "--node-manager-port=6380", ""),
    ("binding", "worker.service", "--node-ip-address=${NODE_IP}", ""),
    ("resources", "worker.service", "--memory=${MEMORY_BYTES}", ""),
    ("resources", "head.service", "--num-cpus=0", "--num-cpus=4"),
    ("resources", "worker.service", "OOMPolicy=continue", ""),
    ("resources", "head.service", "--block", ""),
    ("hardening", "nightly.service", "ProtectSystem=strict", "ProtectSystem=no"),
    ("hardening", "head.service", "User=rayward", "User=root"),
    ("hardening", "head.service", "ExecStart=/opt/rayward/.venv/bin/ray", "ExecStart=ray"),
    ("hardening", "worker.service", "/var/lib/rayward/ray", "/tmp/ray"),
    ("night", "nightly.timer", "Persistent=true", "Persistent=false"),
    ("night", "nightly.timer", "[Timer]", "[Timer]\nOnCalendar=hourly"),
    ("night", "nightly.timer", "WantedBy=timers.target", "WantedBy=multi-user.target"),
    ("night", "nightly.service", "SuccessExitStatus=3 4", ""),
    ("night", "nightly.service", "RestartPreventExitStatus=2 ", "RestartPreventExitStatus="),
    ("night", "nightly.service", "StartLimitBurst=4", ""),
    ("night", "nightly.service", "TimeoutStartSec=7h", "TimeoutStartSec=infinity"),
    ("night", "nightly.service", "--lake ${LAKE}", ""),
]


@pytest.mark.parametrize(("rule", "name", "old", "new"), WRONG)
def test_a_rule_finds(rule: str, name: str, old: str, new: str) -> None:
    text = (VM / f"rayward-{name}").read_text()
    assert old in text
    units: dict[str, Unit] = read() | {name: parse(text.replace(old, new))}
    assert list(RULES[rule](units)) != []


@pytest.mark.slow
@pytest.mark.cluster
def test_the_head_starts_as_its_unit_says_and_asks_for_its_token(tmp_path: Path) -> None:
    """The unit's own command line, on free ports; SIGTERM ends all of it."""
    folder = Path("/tmp") / f"rwu-{os.getpid()}"  # the names of sockets below it are limited
    dashboard = _free_port()
    token = tmp_path / "ray-token"
    token.write_text("a" * 64)
    env = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    env.pop("RAY_AUTH_TOKEN", None)
    log = (tmp_path / "log").open("w")
    head = subprocess.Popen(_on_loopback(dashboard, folder), env=env, stdout=log, stderr=log)
    children: list[psutil.Process] = []
    try:
        url = f"http://127.0.0.1:{dashboard}/api/version"
        assert _answer(url, None) == 401
        assert _answer(url, "b" * 64) == 403
        assert _answer(url, "a" * 64) == 200
        listening = {
            one.laddr.ip
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr.port == dashboard
        }
        assert listening == {"127.0.0.1"}
    finally:
        children = psutil.Process(head.pid).children(recursive=True)
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=30)
        _, left = psutil.wait_procs(children, timeout=15)
        for one in left:
            one.kill()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
    assert children
    assert left == []


def _on_loopback(dashboard: int, folder: Path) -> list[str]:
    """The head's command, filled in: on loopback, on free ports, with little memory."""
    values = environment() | {"NODE_IP": "127.0.0.1", "MEMORY_BYTES": str(2**30)}
    values["OBJECT_STORE_BYTES"] = str(80 * 2**20)
    words = [str(Path(sys.executable).with_name("ray"))]
    for word in command(read()["head.service"])[1:]:
        filled = re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], word)
        flag = filled.partition("=")[0]
        if flag == "--dashboard-port":
            filled = f"{flag}={dashboard}"
        elif flag == "--temp-dir":
            filled = f"{flag}={folder}"
        elif flag.startswith(("--min-", "--max-")):
            continue
        elif flag.endswith("port"):
            filled = f"{flag}={_free_port()}"
        words.append(filled)
    return words


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _answer(url: str, token: str | None) -> int:
    """The status that the dashboard answers with; asked again until it is up."""
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    for _ in range(120):
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the dashboard did not come up within a minute")
