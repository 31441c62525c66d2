"""Planning a night with nothing new, over years of nights."""

import shutil
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import lakes
from benchmarks.harness import Bar, Context, Figure, figure
from benchmarks.processes import fresh, peak_mb

NIGHTS = 1500
SMALL, LARGE = 84_000, 1_000_000
BARS = {SMALL: Bar(2, "s"), LARGE: Bar(5, "s")}
GROWTH = Bar(200, "MB")
_KINDS = {
    "ingest": lakes.INGEST,
    "clean": lakes.CLEAN,
    "prepare": lakes.PREPARE,
    "score": lakes.SCORE,
}


def measure(context: Context) -> list[Figure]:
    """Plan every nightly kind in a fresh process, at two sizes, after 1,500 nights each.

    Once over the files as the nights left them, and once over compacted ones.
    """
    nights = context.count(NIGHTS, least=60)
    figures: list[Figure] = []
    peaks: dict[str, list[float]] = {}
    for images in (SMALL, LARGE):
        count = context.count(images, least=1000)
        build = partial(lakes.build, images=count, nights=nights)
        lake = context.make(f"nights-{count}", build)
        context.say(f"{count:,} images in {nights:,} nights are there")
        left = f"as {nights:,} nights left it"
        merged = Path(shutil.copytree(lake, context.directory / f"compacted-{count}"))
        lakes.compact(merged)
        for place, state in ((lake, left), (merged, "compacted")):
            told, peak = night(str(place), count, state, BARS[images])
            figures.append(told)
            peaks.setdefault(state, []).append(peak)
    figures.extend(growth(f"lake {state}", *both) for state, both in peaks.items())
    return figures


def growth(state: str, small: float, large: float) -> Figure:
    """The figure of how much more memory planning takes at the larger size."""
    what = f"peak memory of planning, growth between the two sizes, {state}"
    return Figure(what, large - small, "MB", GROWTH, details={"peak_mb": [small, large]})


def night(lake: str, count: int, state: str, bar: Bar) -> tuple[Figure, float]:
    """The figure of one lake, and the peak memory of its planning in MB."""
    runs = [_plan(lake, count, list(_KINDS)) for _ in range(3)]
    alone = {kind: _plan(lake, count, [kind]) for kind in _KINDS}
    walls = [sum(run["seconds"].values()) - run["listing_s"] for run in runs]
    told = figure(
        f"planning a night with nothing new, {count:,} images, lake {state}",
        bar,
        walls,
        cpu_s=[sum(run["cpu_s"].values()) - run["listing_s"] for run in runs],
        night=runs,
        alone=alone,
    )
    return told, statistics.median(run["peak_mb"] for run in runs)


def _plan(lake: str, images: int, kinds: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = fresh(
        "benchmarks.planning", "plan_night", lake=lake, images=images, kinds=kinds
    )
    return found


def plan_night(lake: str, images: int, kinds: list[str]) -> dict[str, Any]:
    """Plan the kinds one after the other; wall and CPU seconds of each, and the peak memory.

    ``listing_s`` is what making the names of the archive's files takes, which is no part of it.
    """
    from cluster.kinds import KINDS
    from cluster.storage import peek_storage

    store = lakes.ListedStore(peek_storage(lake))
    store.count = images
    began = peak_mb()
    wall: dict[str, float] = {}
    cpu: dict[str, float] = {}
    for kind in kinds:
        start, used = time.perf_counter(), time.process_time()
        with store.snapshot():
            plan = KINDS[kind].plan(_KINDS[kind], store)
        wall[kind], cpu[kind] = time.perf_counter() - start, time.process_time() - used
        if plan.inputs.num_rows or plan.counts.up_to_date != images:
            raise AssertionError(f"{kind} found something to do: {plan.counts}")
    start = time.perf_counter()
    if "ingest" in kinds:
        for _ in store.list_batches(lakes.ARCHIVE):
            pass
    return {
        "seconds": wall,
        "cpu_s": cpu,
        "listing_s": time.perf_counter() - start,
        "before_mb": began,
        "peak_mb": peak_mb(),
    }
