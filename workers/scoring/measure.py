"""Measuring backends side by side when a bundle is made, and choosing one."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import LARGEST_DIFFERENCE, TORCH_FP32, BackendFigures, OperatingPoint
from workers.models.classifier.outputs import predicted, probabilities
from workers.scoring.forward import Batched, MakeForward, Pixels

LEAST_SECONDS = 1.0
"""CPU seconds a backend's rate is measured at least."""


@dataclass(frozen=True)
class Judge:
    """How raw outputs become labels, for comparing backends."""

    classes: Sequence[str]
    temperature: float
    point: OperatingPoint | None


def measure_backends(
    makers: Mapping[str, MakeForward], pixels_NCHW: Pixels, batch: int, judge: Judge
) -> tuple[dict[str, BackendFigures], dict[str, NDArray[np.float32]]]:
    """Rates of forward passes, and differences of probabilities from eager fp32.

    ``makers`` holds `TORCH_FP32`. Returns the figures and the probabilities (N, C) by backend.
    """
    scores: dict[str, NDArray[np.float32]] = {}
    rates: dict[str, float] = {}
    for name, make in makers.items():
        batched = Batched(make, batch)
        scores[name] = probabilities(batched.outputs(pixels_NCHW), judge.temperature)
        rates[name] = _rate(batched, pixels_NCHW[:batch])
    eager_NC = scores[TORCH_FP32]
    labels_N = predicted(eager_NC, judge.classes, judge.point)
    figures = {
        name: BackendFigures(
            images_per_s=round(rates[name], 1),
            largest_difference=float(np.abs(found_NC - eager_NC).max(initial=0)),
            labels_equal=bool((predicted(found_NC, judge.classes, judge.point) == labels_N).all()),
        )
        for name, found_NC in scores.items()
    }
    return figures, scores


def fastest(figures: Mapping[str, BackendFigures]) -> str:
    """The fastest backend whose scores and labels agree with eager fp32."""
    fit = {
        name: one
        for name, one in figures.items()
        if one.largest_difference <= LARGEST_DIFFERENCE and one.labels_equal
    }
    return max(fit, key=lambda name: fit[name].images_per_s)


def _rate(batched: Batched, pixels_NCHW: Pixels) -> float:
    # One thread computes; its CPU seconds leave out what else the machine is busy with.
    started = time.process_time()
    passes = 0
    while (took := time.process_time() - started) < LEAST_SECONDS or passes < 2:
        batched.outputs(pixels_NCHW)
        passes += 1
    return passes * len(pixels_NCHW) / took
