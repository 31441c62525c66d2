"""Slows the processes of a node down, so that a test can disturb them in the middle of a shard.

Python imports this module by its name in every process that has this folder on its path. It changes
one thing, in processes that compute shards: before a shard's rows are written, they wait.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_PATIENT = "cluster.lake.runs"


def wait() -> bool:
    """Wait `PACE_S` seconds, and then as long as the file `PACE_HOLD` is there; says if it was."""
    time.sleep(float(os.environ.get("PACE_S", "0")))
    hold = Path(os.environ.get("PACE_HOLD", "/nowhere/at/all"))
    held = hold.exists()
    if held:
        hold.with_suffix(".reached").touch()
    while hold.exists():
        time.sleep(0.05)
    return held


class Finder(importlib.abc.MetaPathFinder):
    """Makes whoever records a shard wait first."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _PATIENT:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            record = module.RunWriter.record

            def record_later(*arguments: object, **named: object) -> bool:
                held = wait()
                recorded: bool = record(*arguments, **named)
                if held:
                    Path(os.environ["PACE_HOLD"]).with_suffix(".went").write_text(str(recorded))
                return recorded

            module.RunWriter.record = record_later

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Finder())
