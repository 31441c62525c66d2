"""What the figures were taken on: facts of the machine and versions, without names or paths."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

from benchmarks.processes import ROOT

PACKAGES = [
    "ray",
    "torch",
    "torchvision",
    "timm",
    "duckdb",
    "deltalake",
    "pyarrow",
    "numpy",
    "pandas",
    "opencv-python-headless",
    "openvino",
    "imagehash",
    "pillow",
    "obstore",
]


def facts(cores: int) -> dict[str, object]:
    """CPU model, usable cores, memory in GiB and versions: what two rows of a table must share."""
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
    }


def load() -> float:
    """Processes at work or waiting for a CPU, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def commit() -> str:
    """The commit of the code, with a `+` where files differ from it; `unknown` without git."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=10", "--dirty=+"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return told.stdout.strip() or "unknown"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
