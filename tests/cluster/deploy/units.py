"""systemd units as sections of settings, and what ours promise."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cluster.deploy.manifests import DEPLOY

VM = DEPLOY / "vm"
NAMES = ("head.service", "worker.service", "nightly.service", "nightly.timer")

Unit = dict[str, dict[str, list[str]]]
"""Section -> setting -> its values, in order: systemd lets a setting stand more than once."""


def parse(text: str) -> Unit:
    joined = re.sub(r"\\\n\s*", "", text)
    unit: Unit = {}
    section: dict[str, list[str]] = {}
    for line in joined.splitlines():
        if line.startswith("["):
            section = unit.setdefault(line.strip("[]"), {})
        elif line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return unit


def read() -> dict[str, Unit]:
    return {name: parse((VM / f"rayward-{name}").read_text()) for name in NAMES}


def environment(path: Path = VM / "rayward.env") -> dict[str, str]:
    lines = [one for one in path.read_text().splitlines() if one and not one.startswith("#")]
    return dict(one.split("=", 1) for one in lines)


def command(unit: Unit) -> list[str]:
    (line,) = unit["Service"]["ExecStart"]
    return shlex.split(line)


def _services(units: dict[str, Unit]) -> Iterator[tuple[str, dict[str, list[str]], list[str]]]:
    for name, unit in units.items():
        if name.endswith(".service"):
            yield name, unit["Service"], command(unit)


def token(units: dict[str, Unit]) -> Iterator[str]:
    """Tokens are required by name, and come from files of root that only the service may read."""
    for name, service, words in _services(units):
        env = dict(one.split("=", 1) for one in service.get("Environment", []))
        if env.get("RAY_AUTH_MODE") != "token":
            yield f"{name}: RAY_AUTH_MODE is not token"
        loaded = {one.partition(":")[0] for one in service.get("LoadCredential", [])}
        for variable in ("RAY_AUTH_TOKEN_PATH", "RAYWARD_KEY_FILE"):
            folder, _, file = env.get(variable, "").partition("/")
            if folder != "%d" or file not in loaded:
                yield f"{name}: {variable} is no credential of the unit"
        if {"RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY"} & set(env) or "--redis-password" in words:
            yield f"{name}: a secret in the clear"


def binding(units: dict[str, Unit]) -> Iterator[str]:
    for name, _, words in _services(units):
        if "--head" in words and "--dashboard-host=127.0.0.1" not in words:
            yield f"{name}: the dashboard is not on loopback"
        if "start" in words:
            flags = {one.partition("=")[0] for one in words}
            fixed = {"--node-manager-port", "--object-manager-port", "--metrics-export-port"}
            if not {*fixed, "--min-worker-port", "--max-worker-port"} <= flags:
                yield f"{name}: a port that no firewall can name"
            if "--node-ip-address=${NODE_IP}" not in words:
                yield f"{name}: may take another network's address for its own"


def resources(units: dict[str, Unit]) -> Iterator[str]:
    """Ray on a host counts all of the host's memory, so it is told."""
    for name, service, words in _services(units):
        if "start" not in words:
            continue
        flags = {one.partition("=")[0] for one in words}
        if not {"--memory", "--object-store-memory", "--num-cpus", "--num-gpus"} <= flags:
            yield f"{name}: does not say what it gives to Ray"
        if "--head" in words and "--num-cpus=0" not in words:
            yield f"{name}: the head has CPUs for shards"
        if service.get("OOMPolicy") != ["continue"]:
            yield f"{name}: one process out of memory ends the node"
        if "--block" not in words or service.get("Restart") != ["always"]:
            yield f"{name}: a node that ends does not come back"


def hardening(units: dict[str, Unit]) -> Iterator[str]:
    wanted = {
        "NoNewPrivileges": "true",
        "ProtectSystem": "strict",
        "ProtectHome": "true",
        "PrivateTmp": "true",
        "CapabilityBoundingSet": "",
        "UMask": "0077",
        "User": "rayward",
    }
    for name, service, words in _services(units):
        for key, value in wanted.items():
            if service.get(key) != [value]:
                yield f"{name}: {key} is not {value!r}"
        if not Path(words[0]).is_absolute():
            yield f"{name}: {words[0]} is looked for on the path"
        # What Ray writes lies where the unit may write.
        if "start" in words and "--temp-dir=/var/lib/rayward/ray" not in words:
            yield f"{name}: Ray writes where the unit may not"


def night(units: dict[str, Unit]) -> Iterator[str]:
    """A missed night is caught up once, what can't be cured is not repeated, and it has an end."""
    timer, unit = units["nightly.timer"], units["nightly.service"]
    service = unit["Service"]
    if timer["Timer"].get("Persistent") != ["true"]:
        yield "a missed night is not caught up"
    if len(timer["Timer"].get("OnCalendar", [])) != 1:
        yield "more than one time a night"
    if "Unit" in timer["Timer"] or timer.get("Install", {}).get("WantedBy") != ["timers.target"]:
        yield "the timer does not start with the machine, or starts something else"
    if service.get("Type") != ["oneshot"] or "Install" in unit:
        yield "the night is not the timer's alone to start"
    if service.get("SuccessExitStatus") != ["3 4"]:
        yield "a night that is done with rejects or held counts as failed"
    if "2" not in service.get("RestartPreventExitStatus", [""])[0].split():
        yield "a wrong job file is tried again and again"
    if service.get("Restart") != ["on-failure"] or "StartLimitBurst" not in unit["Unit"]:
        yield "a failed night is not tried again, or without end"
    if service.get("TimeoutStartSec") in (None, ["infinity"]):
        yield "a night has no end"
    words = command(unit)
    if words[1:3] != ["run", "studies/nightly.yaml"] or "${LAKE}" not in words:
        yield "the night runs another file, or on another lake"


RULES: dict[str, Callable[[dict[str, Unit]], Iterator[str]]] = {
    "token": token,
    "binding": binding,
    "resources": resources,
    "hardening": hardening,
    "night": night,
}
