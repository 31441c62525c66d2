"""Cleaning beside a bare loop of processes, and beside Ray Data over images."""

import math
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagehash
import ray.data
from PIL import Image

from benchmarks.archive import make_archive
from benchmarks.driving import driver, fresh_copy, ray_nodes, run_file, steady_rate, timed
from benchmarks.harness import Bar, Context, Figure, figure
from benchmarks.niceness import as_ray_worker
from jobs.clean import thresholds
from schemas.specs.clean import CleanSpec
from workers.cleaning import inspect
from workers.pixels.checks import Thresholds, drop_reason
from workers.pixels.decode import open_image
from workers.pixels.hash import hash_thumbnails

IMAGES = 2560
SHARD_IMAGES = 128
LOOP = Bar(0.95, "x", at_least=True)
RAY_DATA = Bar(3, "x", at_least=True)


def measure(context: Context) -> list[Figure]:
    """Images a second beyond start-up: Rayward, then a bare loop, then Ray Data, and so on."""
    count = context.count(IMAGES, least=SHARD_IMAGES * 6)
    archive = context.make(f"xrays-{count}", lambda folder: make_archive(folder, count))
    paths = sorted(map(str, archive.iterdir()))
    ours, loops, frames, walls = [], [], [], []
    with ray_nodes([context.cores]) as address:
        lake = catalogued(context.directory, archive, address)
        for _ in range(context.rounds):
            copy = fresh_copy(lake, context.directory / "copy")
            reports, marks = run_file(context.directory, copy, [clean_job(SHARD_IMAGES)], address)
            ours.append(steady_rate(marks.marks, context.cores))
            walls.append(reports[0].seconds)
            loops.append(loop_rate(paths, context.cores, SHARD_IMAGES))
            few = paths[: count // 2]
            with driver(address):
                frames.append(ray_data_rate(few))
            context.say(f"{ours[-1]:.0f}, {loops[-1]:.0f}, {frames[-1]:.0f} images/s")
    details: dict[str, Any] = {
        "images": count,
        "mb_an_image": sum(Path(one).stat().st_size for one in paths) / count / 1e6,
        "shard_images": SHARD_IMAGES,
        "processes": context.cores,
        "images_per_s": ours,
        "seconds_by_stage": walls,
    }
    against_loop = [a / b for a, b in zip(ours, loops, strict=True)]
    against_data = [a / b for a, b in zip(ours, frames, strict=True)]
    return [
        figure("clean / bare loop", LOOP, against_loop, **details, peer_images_per_s=loops),
        figure("clean / Ray Data", RAY_DATA, against_data, **details, peer_images_per_s=frames),
    ]


def catalogued(folder: Path, archive: Path, address: str) -> Path:
    """A lake that knows the archive's images and has nothing more."""
    job = {
        "kind": "ingest",
        "name": "xrays",
        "source": str(archive),
        "modality": "CR",
        "fields": {"path": r"\d+-(?P<label>\w+)\.jpg"},
    }
    run_file(folder, folder / "lake", [job], address)
    return folder / "lake"


def clean_job(shard_images: int) -> dict[str, Any]:
    """Cleaning by the usual rules."""
    return {
        "kind": "clean",
        "dataset": "xrays",
        "execution": {"shard_images": shard_images},
    }


def loop_rate(paths: Sequence[str], processes: int, part_images: int) -> float:
    """Images a second of processes that do what cleaning does to an image, and nothing else."""
    parts = [paths[start : start + part_images] for start in range(0, len(paths), part_images)]
    with multiprocessing.get_context("spawn").Pool(processes, as_ray_worker) as pool:
        return steady_rate(timed(iter(pool.imap_unordered(_clean_part, parts))), processes)


def _clean_part(paths: Sequence[str]) -> int:
    found = [inspect(open_image(Path(path).read_bytes()).pixels(0)) for path in paths]
    hashes = hash_thumbnails([one.thumbnail for one in found])
    limits = Thresholds(**thresholds(CleanSpec.model_validate(clean_job(len(paths)))))
    reasons = [drop_reason(one.measures, limits) for one in found]
    assert len(hashes) == len(reasons)
    return len(reasons)


def ray_data_rate(paths: Sequence[str]) -> float:
    """Images a second as Ray Data hashes them, once a quarter of them is done.

    Each row says itself when it was done: the driver hears of rows in bursts.
    """
    blocks = max(6, math.ceil(len(paths) / SHARD_IMAGES))
    rows = ray.data.read_images(list(paths), include_paths=True, override_num_blocks=blocks)
    hashed = rows.map(_hash_row).iter_batches(batch_size=None, prefetch_batches=0)
    ended = sorted(float(one) for batch in hashed for one in batch["ended"])
    return steady_rate([(one, 1) for one in ended], len(ended) // 4)


def _hash_row(row: dict[str, Any]) -> dict[str, Any]:
    value = str(imagehash.phash(Image.fromarray(row["image"])))
    return {"path": row["path"], "phash": value, "ended": time.perf_counter()}
