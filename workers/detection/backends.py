"""Which backends a detector's bundle offers, and which of them it scores with.

Maps are computed by a backend, boxes always by the same code after it. So backends are compared by
what they detect: scores of detections that match, and whether the same ones reach the operating
point.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from schemas.bundle import TORCH_CUDA_FP32, TORCH_FP32, BackendFigures
from workers.detection.boxes import Detections, overlap
from workers.detection.maps import Reading
from workers.scoring.forward import Pixels
from workers.scoring.measure import Candidate, choose_fastest, measure_rates, prepare_candidates

SAMPLE = 200
"""Validation images backends are compared on."""
SAME_OVERLAP = 0.5
"""Intersection over union from which detections of two backends are the same one."""


@dataclass(frozen=True)
class Choice:
    """The backends of a bundle as measured."""

    backend: str = TORCH_FP32
    gpu_backend: str = TORCH_CUDA_FP32
    figures: Mapping[str, BackendFigures] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def choose_backends(
    offered: Mapping[str, Candidate], pixels_NCSS: Pixels, reading: Reading
) -> Choice:
    """Measure backends on a sample of the images and choose the fastest that agrees, by device."""
    sample = np.unique(np.linspace(0, len(pixels_NCSS) - 1, SAMPLE, dtype=np.int64))
    sampled_NCSS = pixels_NCSS[sample]
    ready, left_out = prepare_candidates(offered, sampled_NCSS)
    rates = measure_rates(ready, sampled_NCSS)
    eager = reading.read(ready[TORCH_FP32], sampled_NCSS)
    figures = {}
    for name, network in ready.items():
        found = reading.read(network, sampled_NCSS)
        differences = [
            compare(one, other, reading.settings.score_threshold)
            for one, other in zip(eager, found, strict=True)
        ]
        figures[name] = BackendFigures(
            images_per_s=round(rates[name], 1),
            largest_difference=max(one for one, _ in differences),
            labels_equal=all(same for _, same in differences),
        )
    on_cpu = choose_fastest(figures, "cpu", figures.__getitem__)
    on_gpu = choose_fastest(figures, "cuda", figures.__getitem__)
    return Choice(
        on_cpu[0] if on_cpu else TORCH_FP32,
        on_gpu[0] if on_gpu else TORCH_CUDA_FP32,
        figures,
        left_out,
    )


def compare(eager: Detections, found: Detections, threshold: float) -> tuple[float, bool]:
    """The largest difference of scores in one image, and whether the same ones count.

    A detection that the other side lacks differs by its whole score.
    """
    same_DF = overlap(eager.corners_D4, found.corners_D4) >= SAME_OVERLAP
    same_DF &= eager.categories_D[:, None] == found.categories_D[None, :]
    apart_DF = np.abs(
        eager.scores_D[:, None].astype(np.float64) - found.scores_D[None, :].astype(np.float64)
    )
    apart_DF = np.where(same_DF, apart_DF, np.inf)
    of_eager = np.minimum(apart_DF.min(axis=1, initial=np.inf), eager.scores_D)
    of_found = np.minimum(apart_DF.min(axis=0, initial=np.inf), found.scores_D)
    largest = float(max(of_eager.max(initial=0.0), of_found.max(initial=0.0)))
    counted, other = (
        np.sort(one.categories_D[one.scores_D.astype(np.float64) >= threshold])
        for one in (eager, found)
    )
    return largest, np.array_equal(counted, other)
