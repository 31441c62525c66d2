"""Run a command as a process of its own, and see what it and all its descendants use."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
RAYWARD = str(Path(sys.executable).with_name("rayward"))
"""The command as a user calls it."""


@dataclass(frozen=True)
class Line:
    """A line of standard output, and what the tree had used when it came."""

    at_s: float
    cpu_s: float
    text: str


@dataclass
class Usage:
    """What a process used.

    `cpu_s` is user + system seconds of the whole tree: exact for the process itself, sampled for
    its descendants (a raylet's workers are nobody's waited-for children, so no counter holds them).
    `rss_mb` holds (seconds since start, resident MB of the process itself); `peak_mb` is the
    kernel's high-water mark of it.
    """

    code: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    own_cpu_s: float = 0.0
    peak_mb: float = 0.0
    rss_mb: list[tuple[float, float]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    stderr: str = ""

    @property
    def stdout(self) -> str:
        """Everything it printed."""
        return "".join(line.text for line in self.lines)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    every_s: float = 0.1,
    watch: Callable[["subprocess.Popen[str]"], None] | None = None,
    check: bool = True,
) -> Usage:
    """Run `command` to its end, sampled every `every_s`; `watch` is called at every sample.

    Raises RuntimeError with the end of stderr when `check` and the exit code is not 0.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=ROOT,
        env=dict(os.environ) | dict(env or {}),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    usage = Usage()
    readers = [
        threading.Thread(target=_read_lines, args=(process.stdout, usage, start)),
        threading.Thread(target=_read_all, args=(process.stderr, usage)),
    ]
    for reader in readers:
        reader.start()
    below: dict[tuple[int, float], float] = {}
    try:
        while True:
            # The ended process is left for one last look: only then are its figures final. The
            # figures of wait4 would hold those of children it has waited for, a second time.
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            _sample(process.pid, time.perf_counter() - start, below, usage)
            if ended:
                break
            if watch:
                watch(process)
            time.sleep(every_s)
    except BaseException:  # nobody waits for it any more, so it must not go on
        _end(process)
        raise
    usage.code = process.wait()
    usage.wall_s = time.perf_counter() - start
    for reader in readers:
        reader.join()
    if check and usage.code != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {usage.code}: {usage.stderr[-1500:]}")
    return usage


def fresh(module: str, function: str, **arguments: Any) -> Any:
    """`module.function(**arguments)` in a new interpreter; its JSON answer."""
    code = (
        f"import json, sys; from {module} import {function}; "
        f"print('\\n' + json.dumps({function}(**json.loads(sys.argv[1]))))"
    )
    usage = run([sys.executable, "-c", code, json.dumps(arguments)], every_s=0.5)
    return json.loads(usage.lines[-1].text)


def peak_mb(pid: int | str = "self") -> float:
    """The most resident memory a process has had so far.

    Off /proc, because getrusage's figure is inherited from the process that started this one.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process and all below it."""
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        tree = []
    process.kill()
    process.wait()
    for child in tree:
        with suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(tree, timeout=10)


def _read_lines(stream: IO[str], usage: Usage, start: float) -> None:
    for text in stream:
        usage.lines.append(Line(time.perf_counter() - start, usage.cpu_s, text))


def _read_all(stream: IO[str], usage: Usage) -> None:
    usage.stderr = stream.read()


def _sample(pid: int, at_s: float, below: dict[tuple[int, float], float], usage: Usage) -> None:
    """Note the tree's CPU seconds so far, and the process's own memory."""
    try:
        top = psutil.Process(pid)
        own = top.cpu_times()
        usage.own_cpu_s = own.user + own.system
        for child in top.children(recursive=True):
            with suppress(psutil.Error):  # it ended while we looked
                times = child.cpu_times()
                below[child.pid, child.create_time()] = times.user + times.system
        usage.peak_mb = max(usage.peak_mb, peak_mb(pid))
        if rss := top.memory_info().rss:  # none is left of an ended process
            usage.rss_mb.append((round(at_s, 2), rss / 2**20))
    except psutil.Error:
        return
    finally:
        usage.cpu_s = usage.own_cpu_s + sum(below.values())
