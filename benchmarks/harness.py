"""What a row of the benchmark is: a bar, a way to measure, and the figures that come out.

A row's module defines `measure(context) -> list[Figure]`, and `benchmarks/__main__.py` names it in
its table of rows. An example:

    RATIO = Bar(0.95, "x", at_least=True)

    def measure(context: Context) -> list[Figure]:
        paths = make_images(context.directory, context.count(3000))
        pairs = paired(lambda: ours(paths), lambda: loop(paths), rounds=context.rounds)
        return [figure("clean against a bare loop", RATIO, pairs.ratios, images=len(paths))]
"""

import os
import shutil
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = Any


@dataclass(frozen=True)
class Bar:
    """A limit that a figure has to reach (`at_least`) or must not pass; `unit`: x, s, MB, %."""

    limit: float
    unit: str
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g} {self.unit}"


@dataclass(frozen=True)
class Figure:
    """One measured value; `low` and `high` are the spread of its repetitions, `note` the cause.

    `bar` is None for a figure that is told without a limit. `details` holds plain JSON values.
    """

    what: str
    value: float
    unit: str
    bar: Bar | None = None
    low: float | None = None
    high: float | None = None
    details: dict[str, Json] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the bar is reached; a figure without a bar always is."""
        if self.bar is None:
            return True
        if self.bar.at_least:
            return self.value >= self.bar.limit
        return self.value <= self.bar.limit

    @property
    def short_by(self) -> float | None:
        """The factor that is missing (1.5: half as good again would do), None when met."""
        if self.bar is None or self.met:
            return None
        better, worse = sorted((self.value, self.bar.limit), reverse=True)
        return better / worse if worse > 0 else float("inf")


def figure(
    what: str,
    bar: Bar | None,
    values: Sequence[float],
    note: str = "",
    unit: str = "x",
    **details: Json,
) -> Figure:
    """The median of `values` with their spread, held against `bar`; `unit` where there is none."""
    middle = statistics.median(values)
    low, high = min(values), max(values)
    told = {"runs": list(values)} | details
    return Figure(what, middle, bar.unit if bar else unit, bar, low, high, told, note)


@dataclass(frozen=True)
class Context:
    """Where and how large a row measures.

    `directory` is the row's own and removed after it. `shared` outlives the row: what several rows
    need is made there once (`context.make("kermany", build)`). `scale` 1.0 is full size.
    """

    directory: Path
    shared: Path
    scale: float
    rounds: int
    cores: int
    say: Callable[[str], None]

    def count(self, full: int, least: int = 1) -> int:
        """`full` at the scale of this call, but never fewer than `least` (nor more than `full`)."""
        return max(round(full * self.scale), min(least, full))

    def make(self, name: str, build: Callable[[Path], None]) -> Path:
        """The folder `name` that rows share, built by the first that asks."""
        folder = self.shared / name
        if not folder.exists():
            half = self.shared / f"{name}.half"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            build(half)
            half.rename(folder)
        return folder


@dataclass(frozen=True)
class Row:
    """One row of the table: `bar` in words, `measure` gives its figures."""

    name: str
    what: str
    bar: str
    measure: Callable[[Context], list[Figure]]
    minutes: float


@dataclass(frozen=True)
class Outcome:
    """What came out of a row: its figures, or the reason why there are none."""

    row: Row
    figures: list[Figure]
    seconds: float
    failure: str | None = None
    commit: str = ""
    """The code that was measured."""
    load_before: float | None = None
    """Processes that waited for a CPU when it began, on average."""


@dataclass(frozen=True)
class Paired:
    """Seconds of `ours` and `peer`, run alternately; `ratios` are peer / ours, pair by pair."""

    ours: list[float]
    peer: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as fast ours is as the peer, one value a pair."""
        return [peer / ours for ours, peer in zip(self.ours, self.peer, strict=True)]


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired(
    ours: Callable[[], float | None], peer: Callable[[], float | None], rounds: int
) -> Paired:
    """Run both alternately, `rounds` times each, and start with the other one every time.

    A callable that returns a number has measured itself (steady state, CPU seconds); otherwise its
    wall seconds count.
    """
    took: dict[str, list[float]] = {"ours": [], "peer": []}
    sides = [("ours", ours), ("peer", peer)]
    for number in range(rounds):
        for name, work in sides if number % 2 == 0 else reversed(sides):
            start = time.perf_counter()
            own = work()
            took[name].append(time.perf_counter() - start if own is None else own)
    return Paired(took["ours"], took["peer"])


def run_row(row: Row, context: Context) -> Outcome:
    """Measure one row in its own folder; a row that raises is an outcome too."""
    context.directory.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    try:
        figures, failure = row.measure(context), None
    except Exception as error:  # noqa: BLE001 - the other rows go on
        traceback.print_exc()
        figures, failure = [], f"{type(error).__name__}: {error}"
    took = time.perf_counter() - start
    shutil.rmtree(context.directory, ignore_errors=True)
    return Outcome(row, figures, took, failure)


def usable_cores() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
