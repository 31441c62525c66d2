"""Measuring backends side by side when a bundle is made, and choosing one for each device."""

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import (
    BACKENDS,
    LARGEST_DIFFERENCE,
    TORCH_FP32,
    BackendFigures,
    Device,
    OperatingPoint,
)
from workers.models.classifier.outputs import predicted, probabilities
from workers.scoring.forward import Batched, MakeForward, Outputs, Pixels

ROUNDS = 5
"""Times each backend is measured, one after the other, so that a drifting load hits all alike."""
LEAST_SECONDS = 0.2
"""Seconds of one measurement at least."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A backend to measure."""

    make: MakeForward
    batch: int


@dataclass(frozen=True)
class Judge:
    """How raw outputs become labels, for comparing backends."""

    classes: Sequence[str]
    temperature: float
    point: OperatingPoint | None

    def scores(self, outputs_NC: Outputs) -> NDArray[np.float32]:
        """Probabilities (N, C)."""
        return probabilities(outputs_NC, self.temperature)

    def labels(self, scores_NC: NDArray[np.float32]) -> NDArray[np.int64]:
        """The index of each image's label."""
        return predicted(scores_NC, self.classes, self.point)


@dataclass(frozen=True)
class Measured:
    """What became of the candidates."""

    figures: Mapping[str, BackendFigures]
    left_out: Mapping[str, str]
    """Why a backend can't compute this network here."""
    ready: Mapping[str, Batched]
    """The networks measured."""


def prepare_candidates(
    candidates: Mapping[str, Candidate], pixels_NCHW: Pixels
) -> tuple[dict[str, Batched], dict[str, str]]:
    """The candidates that can compute this network here, and why the others can't.

    Each is tried on the first image; `TORCH_FP32` must succeed.
    """
    ready: dict[str, Batched] = {}
    left_out: dict[str, str] = {}
    for name, candidate in candidates.items():
        try:
            network = Batched(candidate.make, candidate.batch)
            network.outputs(pixels_NCHW[:1])
        except Exception as error:
            # Runtimes raise what they like; one that can't take a network loses only its row.
            if name == TORCH_FP32:
                raise
            left_out[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
            _log.warning("backend %s is left out: %s", name, left_out[name])
            continue
        ready[name] = network
    return ready, left_out


def measure_backends(
    candidates: Mapping[str, Candidate], pixels_NCHW: Pixels, judge: Judge
) -> Measured:
    """Rates of forward passes, and differences of probabilities from eager fp32.

    ``candidates`` holds `TORCH_FP32`. Rates are medians of interleaved rounds, in CPU seconds of
    one thread on a CPU and in seconds on a GPU.
    """
    ready, left_out = prepare_candidates(candidates, pixels_NCHW)
    outputs = {name: network.outputs(pixels_NCHW) for name, network in ready.items()}
    rates = measure_rates(ready, pixels_NCHW)
    eager_NC = judge.scores(outputs[TORCH_FP32])
    figures = {
        name: compare(judge.scores(found), eager_NC, judge, rates[name])
        for name, found in outputs.items()
    }
    return Measured(figures, left_out, ready)


def compare(
    scores_NC: NDArray[np.float32], eager_NC: NDArray[np.float32], judge: Judge, rate: float
) -> BackendFigures:
    """A backend's figures from its probabilities and those of eager fp32."""
    return BackendFigures(
        images_per_s=round(rate, 1),
        largest_difference=float(np.abs(scores_NC - eager_NC).max(initial=0)),
        labels_equal=bool((judge.labels(scores_NC) == judge.labels(eager_NC)).all()),
    )


def choose_fastest(
    figures: Mapping[str, BackendFigures],
    device: Device,
    confirm: Callable[[str], BackendFigures],
) -> tuple[str, BackendFigures] | None:
    """The fastest backend of a device that agrees with eager fp32, and its figures over all.

    ``confirm`` compares one backend over all validation images; it is asked only for those that
    agree on the sample, the fastest first. None where no backend of the device agrees.
    """
    fit = [
        name
        for name, one in figures.items()
        if name in BACKENDS and BACKENDS[name].device == device and agrees(one)
    ]
    for name in sorted(fit, key=lambda name: figures[name].images_per_s, reverse=True):
        whole = confirm(name)
        if agrees(whole):
            return name, whole
    return None


def agrees(figures: BackendFigures) -> bool:
    """Whether scores and labels are within the tolerance of eager fp32."""
    return figures.largest_difference <= LARGEST_DIFFERENCE and figures.labels_equal


def measure_rates(ready: Mapping[str, Batched], pixels_NCHW: Pixels) -> dict[str, float]:
    """Images a second of each network, in interleaved rounds."""
    found: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(ROUNDS):
        for name, batched in ready.items():
            on_gpu = name in BACKENDS and BACKENDS[name].device == "cuda"
            # CPU seconds leave out what else the machine is busy with; a GPU's passes are over
            # when their outputs are back, so seconds by the clock hold all of them.
            clock = time.perf_counter if on_gpu else time.process_time
            found[name].append(_rate(batched, pixels_NCHW[: batched.batch], clock))
    return {name: statistics.median(rates) for name, rates in found.items()}


def _rate(batched: Batched, pixels_NCHW: Pixels, clock: Callable[[], float]) -> float:
    batched.outputs(pixels_NCHW)  # brings the weights back into the caches
    started = clock()
    passes = 0
    while (took := clock() - started) < LEAST_SECONDS or not passes:
        batched.outputs(pixels_NCHW)
        passes += 1
    return passes * len(pixels_NCHW) / took
