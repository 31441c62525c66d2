"""Scoring beside forward passes alone, and beside Ray Data's `map_batches`."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from benchmarks.archive import make_archive
from benchmarks.cleaning import catalogued
from benchmarks.driving import Mark, driver, fresh_copy, ray_nodes, run_file, steady_rate, timed
from benchmarks.harness import Bar, Context, Figure, figure
from benchmarks.niceness import as_ray_worker
from cluster.lake.store import LakeStore
from cluster.works import WORKS
from schemas.bundle import TORCH_FP32, BundleConfig, parse_config
from schemas.plan import Blob, PreparedPixels
from workers.scoring.forward import Forward

IMAGES = 1152
ROUNDS = 3
"""At most; the eager network takes its time."""
LESSONS = 320
SHARD_IMAGES = 64
EAGER_PART = 32
SIZE_PX = 224
MODEL = "xrays-resnet18"
ALONE = Bar(0.95, "x", at_least=True)
EAGER = Bar(1.8, "x", at_least=True)


@dataclass(frozen=True)
class Place:
    """A lake with an archive of images that are prepared, and a bundle."""

    lake: Path
    bundle: str
    """Where the bundle's files lie."""
    config: BundleConfig
    recipe: str
    count: int
    cores: int


def measure(context: Context) -> list[Figure]:
    """Images a second beyond start-up, of Rayward and each peer in turn, on the same cores."""
    count = context.count(IMAGES, least=SHARD_IMAGES * 6)
    archive = context.make(f"xrays-{count}", lambda folder: make_archive(folder, count))
    rates: dict[str, list[float]] = {}
    with ray_nodes([context.cores]) as address:
        place = _place(context, archive, count, address)
        context.say(f"the bundle scores with {place.config.backend}")
        for turn in range(min(context.rounds, ROUNDS)):
            sides = _sides(context, place, address)
            for name in sides if turn % 2 == 0 else reversed(sides):
                rates.setdefault(name, []).append(sides[name]())
            told = ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items())
            context.say(f"{told} images/s")
    return _figures(place, rates)


def _sides(context: Context, place: Place, address: str) -> dict[str, Callable[[], float]]:
    def ray_data(rows: Callable[[Place], ray.data.Dataset]) -> float:
        with driver(address):
            return _ray_data_rate(place, rows(place))

    backend = place.config.backend
    return {
        "score": lambda: _score(context, place, address, use_prepared=True),
        "alone": lambda: _forward_rate(place, backend, place.count, SHARD_IMAGES),
        "eager": lambda: _forward_rate(place, TORCH_FP32, context.count(512, 256), EAGER_PART),
        "ray_data": lambda: ray_data(_prepared_rows),
        "score_sources": lambda: _score(context, place, address, use_prepared=False),
        "ray_data_sources": lambda: ray_data(_source_rows),
    }


def _figures(place: Place, rates: Mapping[str, list[float]]) -> list[Figure]:
    config = place.config
    chosen = config.backends[config.backend]
    details: dict[str, Any] = {
        "images": place.count,
        "processes": place.cores,
        "backend": config.backend,
        "batch": config.batch,
        "largest_difference": chosen.largest_difference,
        "labels_equal": chosen.labels_equal,
        "validation_images": config.metrics["val"]["n"],
        "images_per_s": rates,
    }
    agrees = f"largest difference {chosen.largest_difference:.4f}, labels "
    agrees += "equal" if chosen.labels_equal else "differ"
    decoding = [1 - one for one in _over(rates["score_sources"], rates["alone"])]
    eager = _over(rates["score"], rates["eager"])
    return [
        figure(
            "score from prepared pixels / forward passes alone",
            ALONE,
            _over(rates["score"], rates["alone"]),
            **details,
        ),
        figure(f"score by {config.backend} / eager fp32 passes alone; {agrees}", EAGER, eager),
        _told("score / Ray Data, prepared pixels", _over(rates["score"], rates["ray_data"])),
        _told(
            "score / Ray Data, sources",
            _over(rates["score_sources"], rates["ray_data_sources"]),
        ),
        _told("share of the time for decoding, from sources", decoding),
    ]


def _told(what: str, values: Sequence[float]) -> Figure:
    """A figure without a bar."""
    middle = statistics.median(values)
    return Figure(what, middle, "x", low=min(values), high=max(values))


def _over(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, peer, strict=True)]


def _place(context: Context, archive: Path, count: int, address: str) -> Place:
    """The lake: a network trained on phantoms, the archive catalogued and prepared."""
    folder = context.directory
    lake = catalogued(folder, archive, address)
    preprocess = {"size": SIZE_PX}
    prepare = {
        "kind": "prepare",
        "dataset": "xrays",
        "images": "all",
        "preprocess": preprocess,
        "execution": {"shard_images": SHARD_IMAGES},
    }
    run_file(folder, lake, [*_lessons(folder), prepare], address)
    store = LakeStore.open(str(lake))
    row = store.bundle(MODEL)
    config = parse_config(store.read_source(f"{row['uri']}/config.json"))
    return Place(lake, row["uri"], config, row["recipe"], count, context.cores)


def _lessons(folder: Path) -> list[Mapping[str, Any]]:
    """A training that is short because its question is easy: ultrasound, or a chest X-ray?"""
    corpus = folder / "lessons"
    return [
        {
            "kind": "phantoms",
            "target": str(corpus),
            "count": LESSONS,
            "size": 256,
            "modalities": {"us": 1, "xray": 1},
            "near_duplicate_share": 0,
            "duplicate_share": 0,
            "broken_share": 0,
        },
        {
            "kind": "ingest",
            "name": "lessons",
            "source": str(corpus / "images"),
            "fields": {"path": "(?P<label>us|xray)/(?P<patient>[^/]+)/.*"},
        },
        {"kind": "clean", "dataset": "lessons", "phash": None},
        {"kind": "split", "name": "split", "dataset": "lessons", "max_group_share": 0.2},
        {
            "kind": "train",
            "dataset": "lessons",
            "split": "lessons-split",
            "model": MODEL,
            "architecture": "resnet18",
            "preprocess": {"size": SIZE_PX},
            "precision": "bf16",
            "epochs": 2,
            "batch_size": 16,
            "optimizer": {"learning_rate": 0.0005},
        },
    ]


def _score(context: Context, place: Place, address: str, *, use_prepared: bool) -> float:
    job = {
        "kind": "score",
        "dataset": "xrays",
        "model": MODEL,
        "images": "all",
        "use_prepared": use_prepared,
        "execution": {"shard_images": SHARD_IMAGES},
    }
    copy = fresh_copy(place.lake, context.directory / "copy")
    _, marks = run_file(context.directory, copy, [job], address)
    return steady_rate(marks.marks, place.cores)


def _forward_rate(place: Place, backend: str, count: int, part_images: int) -> float:
    """Images a second of processes that pass pixels in memory through the network, no more."""
    shape = (part_images, place.config.preprocessing.channels, SIZE_PX, SIZE_PX)
    parts = [part_images] * (count // part_images)
    spawn = multiprocessing.get_context("spawn")
    arguments = (place.bundle, backend, shape)
    with spawn.Pool(place.cores, _open_network, arguments) as pool:
        return steady_rate(timed(iter(pool.imap_unordered(_pass, parts))), place.cores)


_network: list[tuple[Forward, np.ndarray[Any, np.dtype[np.uint8]]]] = []


def _open_network(bundle: str, backend: str, shape: tuple[int, int, int, int]) -> None:
    as_ray_worker()
    scorer: Any = WORKS["score"].load(
        {
            "bundle": bundle,
            "model_id": parse_config((Path(bundle) / "config.json").read_bytes()).model_id,
            "backend": backend,
            "device": "cpu",
            "scored_at": "2026-01-01T00:00:00Z",
        }
    )
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    _network.append((scorer.network._forward, pixels))  # noqa: SLF001 - without padding and slicing


def _pass(count: int) -> int:
    ((forward, pixels),) = _network
    for start in range(0, count, forward.batch):
        forward(pixels[start : start + forward.batch])
    return count


class DataScorer:
    """What a user of Ray Data writes: an actor that holds the network and scores batches."""

    def __init__(self, bundle: str, backend: str, model_id: str) -> None:
        self._score = WORKS["score"].load(
            {
                "bundle": bundle,
                "model_id": model_id,
                "backend": backend,
                "device": "cpu",
                "scored_at": "2026-01-01T00:00:00Z",
            }
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Scores of a batch of prepared pixels or of paths, and when they were done."""
        rows = batch.append_column("frame", pa.array([0] * batch.num_rows, pa.int32()))
        result = self._score(rows, self._blobs(batch))
        assert not result.rejected
        ended = pa.array([time.perf_counter()] * batch.num_rows, pa.float64())
        return result.tables["predictions"].append_column("ended", ended)

    def _blobs(self, batch: pa.Table) -> list[Blob]:
        if "pixels" not in batch.column_names:
            return [Path(path).read_bytes() for path in batch["uri"].to_pylist()]
        return [
            PreparedPixels(data, height, width)
            for data, height, width in zip(
                *(batch[name].to_pylist() for name in ("pixels", "height", "width")), strict=True
            )
        ]


SHARE_CPUS = 0.5
"""What an actor and a reading task of Ray Data ask for, so that both run on every core: with
whole CPUs for the actors nothing is left to read with, and Ray Data waits forever."""


def _prepared_rows(place: Place) -> ray.data.Dataset:
    files = sorted(map(str, (place.lake / "tables/prepared").rglob("*.parquet")))
    columns = ["image_id", "pixels", "height", "width"]
    return ray.data.read_parquet(files, columns=columns, num_cpus=SHARE_CPUS)


def _source_rows(place: Place) -> ray.data.Dataset:
    store = LakeStore.open(str(place.lake))
    rows = store.query(
        "SELECT image_id, uri FROM current_images WHERE dataset = 'xrays' ORDER BY uri"
    )
    shards = [rows.slice(at, SHARD_IMAGES) for at in range(0, rows.num_rows, SHARD_IMAGES)]
    return ray.data.from_arrow(shards)


def _ray_data_rate(place: Place, rows: ray.data.Dataset) -> float:
    scored = rows.map_batches(
        DataScorer,
        fn_constructor_args=(place.bundle, place.config.backend, place.config.model_id),
        batch_size=SHARD_IMAGES,
        batch_format="pyarrow",
        num_cpus=SHARE_CPUS,
        concurrency=place.cores,
    )
    marks = [mark for batch in _batches(scored) for mark in batch]
    return steady_rate(sorted(marks), place.cores)


def _batches(scored: ray.data.Dataset) -> Iterator[list[Mark]]:
    for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
        assert isinstance(batch, pa.Table)
        counted = batch.group_by("ended").aggregate([("ended", "count")])
        yield list(
            zip(counted["ended"].to_pylist(), counted["ended_count"].to_pylist(), strict=True)
        )
