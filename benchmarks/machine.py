"""What the figures were taken on: facts of the machine and versions, without names or paths."""

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

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
    """CPU model, usable cores, memory in GiB and versions."""
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
