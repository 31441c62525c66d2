"""Which backends a classifier's bundle offers, and which of them it scores with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import TORCH_CUDA_FP32, TORCH_FP32, BackendFigures
from workers.scoring.forward import Pixels
from workers.scoring.measure import (
    Candidate,
    Judge,
    choose_fastest,
    compare,
    measure_backends,
)

SAMPLE = 1000
"""Validation images every backend is compared on; the chosen one is compared on all."""


@dataclass(frozen=True)
class Choice:
    """The backends of a bundle as measured."""

    backend: str
    gpu_backend: str
    figures: Mapping[str, BackendFigures]
    left_out: Mapping[str, str]


def choose_backends(
    offered: Mapping[str, Candidate],
    pixels_NCHW: Pixels,
    eager_NC: NDArray[np.float32],
    judge: Judge,
) -> Choice:
    """Measure backends on a sample of images, and confirm the fastest on all of them.

    ``eager_NC`` are the probabilities of all images by eager fp32.
    """
    sample = np.unique(np.linspace(0, len(pixels_NCHW) - 1, SAMPLE, dtype=np.int64))
    measured = measure_backends(offered, pixels_NCHW[sample], judge)
    figures = dict(measured.figures)

    def confirm(name: str) -> BackendFigures:
        if len(sample) < len(pixels_NCHW) and name != TORCH_FP32:
            scores_NC = judge.scores(measured.ready[name].outputs(pixels_NCHW))
            figures[name] = compare(scores_NC, eager_NC, judge, figures[name].images_per_s)
        return figures[name]

    on_cpu = choose_fastest(measured.figures, "cpu", confirm)
    on_gpu = choose_fastest(measured.figures, "cuda", confirm)
    return Choice(
        backend=on_cpu[0] if on_cpu else TORCH_FP32,
        gpu_backend=on_gpu[0] if on_gpu else TORCH_CUDA_FP32,
        figures=figures,
        left_out=measured.left_out,
    )
