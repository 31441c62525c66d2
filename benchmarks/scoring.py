"""Scoring beside forward passes alone, and beside Ray Data's `map_batches`."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from benchmarks.archive import make_archive
from benchmarks.driving import Mark, driver, ray_nodes, steady_rate
from benchmarks.forwards import (
    SHARD_IMAGES,
    Lessons,
    Place,
    forward_rate,
    make_place,
    over,
    score_rate,
)
from benchmarks.harness import Bar, Context, Figure, figure
from cluster.lake.store import LakeStore
from cluster.works import WORKS
from schemas.bundle import TORCH_FP32
from schemas.plan import Blob, PreparedPixels

IMAGES = 1152
ROUNDS = 3
"""At most; the eager network takes its time."""
LESSONS = 320
EAGER_PART = 32
SIZE_PX = 224
MODEL = "xrays-resnet18"
ALONE = Bar(0.95, "x", at_least=True)
EAGER = Bar(1.8, "x", at_least=True)


def measure(context: Context) -> list[Figure]:
    """Images a second beyond start-up, of Rayward and each peer in turn, on the same cores."""
    count = context.count(IMAGES, least=SHARD_IMAGES * 6)
    archive = context.make(f"xrays-{count}", lambda folder: make_archive(folder, count))
    rates: dict[str, list[float]] = {}
    with ray_nodes([context.cores]) as address:
        place = make_place(context, archive, count, address, _lessons(context.directory))
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
        "score": lambda: score_rate(context, place, address, use_prepared=True),
        "alone": lambda: forward_rate(place, backend, place.count, SHARD_IMAGES),
        "eager": lambda: forward_rate(place, TORCH_FP32, context.count(512, 256), EAGER_PART),
        "ray_data": lambda: ray_data(_prepared_rows),
        "score_sources": lambda: score_rate(context, place, address, use_prepared=False),
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
    decoding = [1 - one for one in over(rates["score_sources"], rates["alone"])]
    eager = over(rates["score"], rates["eager"])
    return [
        figure(
            "score from prepared pixels / forward passes alone",
            ALONE,
            over(rates["score"], rates["alone"]),
            **details,
        ),
        figure(f"score by {config.backend} / eager fp32 passes alone; {agrees}", EAGER, eager),
        _told("score / Ray Data, prepared pixels", over(rates["score"], rates["ray_data"])),
        _told(
            "score / Ray Data, sources",
            over(rates["score_sources"], rates["ray_data_sources"]),
        ),
        _told("share of the time for decoding, from sources", decoding),
    ]


def _told(what: str, values: Sequence[float]) -> Figure:
    """A figure without a bar."""
    middle = statistics.median(values)
    return Figure(what, middle, "x", low=min(values), high=max(values))


def _lessons(folder: Path) -> Lessons:
    """A training that is short because its question is easy: ultrasound, or a chest X-ray?"""
    corpus = folder / "lessons"
    jobs: list[Mapping[str, Any]] = [
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
    return Lessons(MODEL, {"size": SIZE_PX}, jobs)


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
