"""Ray Train beside torchrun: the same loop, the same data in memory, as many workers."""

import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.archive import make_archive
from benchmarks.driving import driver, ray_nodes
from benchmarks.epochs import VALIDATION_EVERY, config, rows
from benchmarks.harness import Bar, Context, Figure, figure
from benchmarks.processes import run
from cluster.fetch import Fetcher
from cluster.torch_trainer import TrainPlace, train
from cluster.train_methods import classifier
from cluster.train_task import TrainTask
from workers.models.classifier.bundling import BundleFacts

IMAGES = 768
EPOCHS = 3
"""The first, in which oneDNN and gloo warm up, does not count."""
ROUNDS = 5
"""At most: starts take longer than epochs, but a machine's speed drifts from one to the next."""
BAR = Bar(0.95, "x", at_least=True)

Ends = list[tuple[float, dict[str, float]]]
"""Moment (seconds of `time.monotonic`) and figures of every finished epoch."""


def measure(context: Context) -> list[Figure]:
    """Images a second of whole epochs, validation and checkpoint included, but for the first."""
    count = context.count(IMAGES, least=192)
    archive = context.make(f"small-xrays-{count}", lambda folder: make_archive(folder, count, 128))
    workers = context.cores
    runs: dict[str, list[dict[str, float]]] = {"ray": [], "torchrun": []}
    for turn in range(min(context.rounds, ROUNDS)):
        folder = context.directory / str(turn)
        folder.mkdir()
        sides = [("ray", _with_ray), ("torchrun", _with_torchrun)]
        for name, side in sides if turn % 2 == 0 else reversed(sides):
            began_s = time.monotonic()
            ends = side(archive, folder, workers)
            runs[name].append(_told(ends, began_s, time.monotonic(), _trained_on(count)))
            context.say(f"{name}: {runs[name][-1]['epoch_images_per_s']:.0f} images/s")
    return [
        figure(
            "Ray Train / torchrun, whole epochs",
            BAR,
            _ratios(runs, "epoch_images_per_s"),
            images=_trained_on(count),
            epochs=EPOCHS,
            workers=workers,
            batches_alone=_ratios(runs, "batch_images_per_s"),
            runs_in_full=runs,
        )
    ]


class _Notes:
    """Writes down when epochs ended, in the first worker."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, figures: Mapping[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([time.monotonic(), dict(figures)]) + "\n")


def _with_ray(archive: Path, folder: Path, workers: int) -> Ends:
    settings = config(EPOCHS)
    facts = BundleFacts(
        name="bench",
        architecture=settings.architecture,
        classes=settings.classes,
        positive="pneumonia",
        rule="youden",
        data={},
        fingerprint="0" * 16,
        backends="eager",  # nobody scores with this bundle
    )
    notes = folder / "ray-ends"
    method = classifier(settings, facts)
    task = TrainTask(method, rows(archive), Fetcher().fetch, note=_Notes(notes))
    with ray_nodes([workers]) as address, driver(address):
        train(task, TrainPlace(workers, str(folder / "storage"), "bench"))
    return [(at, figures) for at, figures in map(json.loads, notes.read_text().splitlines())]


def _with_torchrun(archive: Path, folder: Path, workers: int) -> Ends:
    run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(workers), "-m", "benchmarks.torchrun_loop"),
            *(str(archive), str(EPOCHS), str(folder)),
        ],
        env={"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        every_s=1,
    )
    return [(at, figures) for at, figures in json.loads((folder / "ends.json").read_text())]


def _told(ends: Ends, began_s: float, ended_s: float, images: int) -> dict[str, float]:
    """What is said of one training; ``ended_s`` is after Ray's run has made its bundle too."""
    lasted = [after - before for (before, _), (after, _) in itertools.pairwise(ends)]
    batches = [figures["train_s"] for _, figures in ends[1:]]
    return {
        "epoch_images_per_s": images / statistics.median(lasted),
        "batch_images_per_s": images / statistics.median(batches),
        "s_to_first_epoch": ends[0][0] - began_s,
        "s_after_last_epoch": ended_s - ends[-1][0],
        "s_whole": ended_s - began_s,
    }


def _trained_on(count: int) -> int:
    return count - len(range(0, count, VALIDATION_EVERY))


def _ratios(runs: Mapping[str, list[dict[str, float]]], name: str) -> list[float]:
    pairs = zip(runs["ray"], runs["torchrun"], strict=True)
    return [float(ours[name] / peer[name]) for ours, peer in pairs]
