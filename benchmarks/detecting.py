"""Scoring with detectors beside forward passes alone, and what it takes to read boxes from maps."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.archive import make_archive
from benchmarks.driving import ray_nodes
from benchmarks.forwards import (
    SHARD_IMAGES,
    Lessons,
    Place,
    forward_rate,
    make_place,
    open_network,
    over,
    score_rate,
)
from benchmarks.harness import Bar, Context, Figure, figure
from workers.detection.families import family_of
from workers.detection.maps import Reading, to_original
from workers.pixels.recipe import Geometry

IMAGES: Mapping[str, int] = {"centernet": 384, "yolox": 1920}
"""Some seconds of work: YOLOX-nano is ten times as fast."""
ROUNDS = 3
LESSONS = 120
SIZE_PX = 256
ARCHITECTURES: Mapping[str, str] = {"centernet": "resnet18", "yolox": "yolox-nano"}
ALONE = Bar(0.95, "x", at_least=True)
READING = Bar(10, "%")


def measure(context: Context) -> list[Figure]:
    """For each family: images a second beyond start-up, and the cost of decoding maps."""
    return [one for family in ARCHITECTURES for one in _family(context, family)]


def _family(context: Context, family: str) -> list[Figure]:
    count = context.count(IMAGES[family], least=SHARD_IMAGES * 6)
    archive = context.make(f"xrays-{count}", lambda folder: make_archive(folder, count))
    rates: dict[str, list[float]] = {"score": [], "alone": []}
    folder = context.directory / family
    folder.mkdir()
    own = replace(context, directory=folder)
    with ray_nodes([context.cores]) as address:
        place = make_place(own, archive, count, address, _lessons(folder, family))
        backend = place.config.backend
        for _ in range(min(context.rounds, ROUNDS)):
            rates["score"].append(score_rate(own, place, address, use_prepared=True))
            rates["alone"].append(forward_rate(place, backend, count, SHARD_IMAGES))
    context.say(", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items()))
    shares, found = _reading_shares(place)
    name = f"{family} {ARCHITECTURES[family]}"
    details = {"images": count, "backend": backend, "images_per_s": rates}
    return [
        figure(
            f"score with {name}, prepared pixels / forward passes alone",
            ALONE,
            over(rates["score"], rates["alone"]),
            **details,
        ),
        figure(
            f"{name}: from maps to boxes, of the time of its forward pass",
            READING,
            shares,
            detections_an_image=found,
        ),
    ]


def _reading_shares(place: Place) -> tuple[list[float], float]:
    """CPU time of decoding a batch, %, of that of its pass; and detections an image.

    Images are noise: a network that is sure of nothing has the most to sort out.
    """
    config = place.config
    assert config.detection is not None
    network = open_network(place.bundle, config.backend)
    reading = Reading(family_of(config.family), config.detection)
    geometry = Geometry(0.5, 0.5, 0.0, 10.0)
    shape = (network.batch, config.preprocessing.channels, SIZE_PX, SIZE_PX)
    shares, found = [], 0
    for turn in range(12):
        pixels_NCSS = np.random.default_rng(turn).integers(0, 256, shape, np.uint8)
        started = time.process_time()
        outputs_NR = network.outputs(pixels_NCSS)
        passed = time.process_time()
        boxes = [
            to_original(one, geometry, (2 * SIZE_PX, 2 * SIZE_PX))
            for one in reading.detections(outputs_NR)
        ]
        ended = time.process_time()
        found += sum(map(len, boxes))
        if turn >= 2:  # the first ones warm up
            shares.append(100 * (ended - passed) / (passed - started))
    return shares, found / (12 * network.batch)


def _lessons(folder: Path, family: str) -> Lessons:
    """A training of one epoch: how fast a detector is depends little on what it has learned."""
    corpus = folder / "lessons"
    preprocess = {"size": SIZE_PX, "channels": 1}
    jobs: list[Mapping[str, Any]] = [
        {
            "kind": "phantoms",
            "target": str(corpus),
            "count": LESSONS,
            "size": 256,
            "modalities": {"us": 1},
            "near_duplicate_share": 0,
            "duplicate_share": 0,
            "broken_share": 0,
        },
        {
            "kind": "ingest",
            "name": "lessons",
            "source": str(corpus / "images"),
            "metadata": {"file": str(corpus / "metadata.csv")},
        },
        {
            "kind": "annotate",
            "name": "boxes",
            "dataset": "lessons",
            "csv": {"file": str(corpus / "boxes.csv"), "columns": {"image": "path"}},
            "complete": True,
        },
        {"kind": "clean", "dataset": "lessons", "phash": None},
        {"kind": "split", "name": "split", "dataset": "lessons", "max_group_share": 0.2},
        {
            "kind": "train_detector",
            "dataset": "lessons",
            "split": "lessons-split",
            "annotations": "lessons-boxes",
            "model": f"lessons-{family}",
            "family": family,
            "one_class": True,
            "preprocess": preprocess,
            "precision": "bf16",
            "epochs": 1,
        },
    ]
    return Lessons(f"lessons-{family}", preprocess, jobs)
