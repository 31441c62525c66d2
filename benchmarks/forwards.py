"""A lake with a bundle and prepared images: scored by Rayward, and by forward passes alone."""

import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cleaning import catalogued
from benchmarks.driving import fresh_copy, run_file, steady_rate, timed
from benchmarks.harness import Context
from benchmarks.niceness import as_ray_worker
from cluster.lake.store import LakeStore
from cluster.works import WORKS
from schemas.bundle import BundleConfig, parse_config
from workers.scoring.forward import Batched, Forward

SHARD_IMAGES = 64


@dataclass(frozen=True)
class Lessons:
    """What makes the bundle."""

    model: str
    preprocess: Mapping[str, Any]
    jobs: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Place:
    """A lake with an archive of images that are prepared, and a bundle."""

    lake: Path
    bundle: str
    """Where the bundle's files lie."""
    config: BundleConfig
    count: int
    cores: int


def make_place(
    context: Context, archive: Path, count: int, address: str, lessons: Lessons
) -> Place:
    """The lake: a network trained on phantoms, the archive catalogued and prepared."""
    folder = context.directory
    lake = catalogued(folder, archive, address)
    prepare = {
        "kind": "prepare",
        "dataset": "xrays",
        "images": "all",
        "preprocess": lessons.preprocess,
        "execution": {"shard_images": SHARD_IMAGES},
    }
    run_file(folder, lake, [*lessons.jobs, prepare], address)
    store = LakeStore.open(str(lake))
    uri = store.bundle(lessons.model)["uri"]
    config = parse_config(store.read_source(f"{uri}/config.json"))
    return Place(lake, uri, config, count, context.cores)


def score_rate(context: Context, place: Place, address: str, *, use_prepared: bool) -> float:
    """Images a second of `score` over the archive, beyond start-up."""
    job = {
        "kind": "score",
        "dataset": "xrays",
        "model": place.config.name,
        "images": "all",
        "use_prepared": use_prepared,
        "execution": {"shard_images": SHARD_IMAGES},
    }
    copy = fresh_copy(place.lake, context.directory / "copy")
    _, marks = run_file(context.directory, copy, [job], address)
    return steady_rate(marks.marks, place.cores)


def forward_rate(place: Place, backend: str, count: int, part_images: int) -> float:
    """Images a second of processes that pass pixels in memory through the network, no more."""
    preprocessing = place.config.preprocessing
    shape = (part_images, preprocessing.channels, preprocessing.size_px, preprocessing.size_px)
    parts = [part_images] * (count // part_images)
    spawn = multiprocessing.get_context("spawn")
    arguments = (place.bundle, backend, shape)
    with spawn.Pool(place.cores, _open_network, arguments) as pool:
        return steady_rate(timed(iter(pool.imap_unordered(_pass, parts))), place.cores)


def over(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    """Ratios of paired runs."""
    return [a / b for a, b in zip(ours, peer, strict=True)]


def open_network(bundle: str, backend: str) -> Batched:
    """The network of a bundle's files, as a scoring process has it."""
    scorer: Any = WORKS["score"].load(
        {
            "bundle": bundle,
            "model_id": parse_config((Path(bundle) / "config.json").read_bytes()).model_id,
            "backend": backend,
            "device": "cpu",
            "scored_at": "2026-01-01T00:00:00Z",
        }
    )
    network: Batched = scorer.network
    return network


_network: list[tuple[Forward, np.ndarray[Any, np.dtype[np.uint8]]]] = []


def _open_network(bundle: str, backend: str, shape: tuple[int, int, int, int]) -> None:
    as_ray_worker()
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    network = open_network(bundle, backend)
    _network.append((network._forward, pixels))  # noqa: SLF001 - without padding and slicing


def _pass(count: int) -> int:
    ((forward, pixels),) = _network
    for start in range(0, count, forward.batch):
        forward(pixels[start : start + forward.batch])
    return count
