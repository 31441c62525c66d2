"""Planning a night with nothing new on a lake on S3, and listing an archive there, page by page."""

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import lakes, planning, s3_server
from benchmarks.harness import Context, Figure, figure
from benchmarks.processes import fresh

_OBJECTS = 1_000_000
_REPEATS = 3


def measure(context: Context) -> list[Figure]:
    """Plan over compacted lakes of both sizes in fresh processes; then list a million objects.

    The server is moto on this machine and takes its share of the cores, so what is measured is an
    upper bound of what the same requests take here, without a network's round trips.
    """
    nights = context.count(planning.NIGHTS, least=60)
    figures: list[Figure] = []
    peaks: list[float] = []
    with s3_server.moto():
        for images in (planning.SMALL, planning.LARGE):
            count = context.count(images, least=1000)
            folder = context.make(
                f"compacted-{count}", partial(_build, images=count, nights=nights)
            )
            root = f"s3://nights-{count}/lake"
            files = s3_server.upload(folder, root)
            context.say(f"{count:,} images lie on S3 in {files:,} objects")
            told, peak = planning.night(root, count, "compacted, on S3", planning.BARS[images])
            figures.append(told)
            peaks.append(peak)
    figures.append(planning.growth("lake compacted, on S3", *peaks))
    figures.append(_listing(context.count(_OBJECTS, least=20_000)))
    return figures


def _build(folder: Path, images: int, nights: int) -> None:
    lakes.build(folder, images, nights)
    lakes.compact(folder)


def _listing(objects: int) -> Figure:
    with s3_server.endless_listing(objects):
        runs: list[dict[str, Any]] = [
            fresh("benchmarks.planning_s3", "list_archive", objects=objects)
            for _ in range(_REPEATS)
        ]
    return figure(
        f"listing {objects:,} objects of an archive on S3, pages of 1,000 a second",
        None,
        [one["pages"] / one["seconds"] for one in runs],
        unit="pages/s",
        growth_mb=statistics.median(one["growth_mb"] for one in runs),
        listings=runs,
    )


def list_archive(objects: int) -> dict[str, float]:
    """List a whole archive as ingest does; its pages, seconds and the growth of memory."""
    from benchmarks.processes import peak_mb
    from cluster.sources import list_batches

    before, start, used = peak_mb(), time.perf_counter(), time.process_time()
    count = sum(batch.num_rows for batch in list_batches("s3://archive/archive"))
    if count != objects:
        raise AssertionError(f"{count} objects were listed")
    return {
        "pages": objects / s3_server.PAGE_KEYS,
        "seconds": time.perf_counter() - start,
        "cpu_s": time.process_time() - used,
        "growth_mb": peak_mb() - before,
    }
