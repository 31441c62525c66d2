"""What the nearest neighbours of images tell of their class: how good features are.

Suffixes: M images with a known class, N images that are asked about, D numbers of a feature vector,
K classes, G patients, R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from workers.metrics.bootstrap import Floats, Patients, resampled_intervals

Targets = NDArray[np.int64]
Features = NDArray[np.floating]


def nearest_class(
    known_MD: Features, targets_M: Targets, asked_ND: Features, neighbours: int
) -> Targets:
    """The class that most of the nearest images have, by the angle between feature vectors.

    There are as many neighbours as asked for, or as there are images. Of classes that are equally
    frequent among them the first counts.
    """
    machine = KNeighborsClassifier(
        n_neighbors=min(neighbours, len(known_MD)), metric="cosine", algorithm="brute"
    )
    machine.fit(normalize(known_MD), targets_M)
    found: Targets = machine.predict(normalize(asked_ND)).astype(np.int64)
    return found


def compare_predictions(
    actual_N: Targets,
    predicted: Mapping[str, Targets],
    groups: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of two predictors of the same images, and what the first gains on the second.

    ``predicted`` holds the two by name. The keys are ``NAME_accuracy``, ``NAME_balanced`` (the mean
    over classes of the share that is right), ``gain_accuracy`` and ``gain_balanced``; each has its
    95 % interval beside it, under the name with `` 95%``. Intervals resample patients (``groups``,
    one an image), the same ones for both predictors, so that those of a gain are paired; of a
    single patient there are none.
    """
    patients = Patients.of(groups)
    sums_GX = patients.sums(_indicators(actual_N, list(predicted.values())))

    def figures(drawn_GR: Floats) -> dict[str, Floats]:
        return _figures(list(predicted), drawn_GR, sums_GX)

    intervals = resampled_intervals(figures, patients, resamples, seed)
    found: dict[str, Any] = {}
    for name, value in figures(patients.once()).items():
        found[name] = round(float(value[0]), 6)
        ends = intervals.get(name)
        if ends is not None:
            found[f"{name} 95%"] = [round(end, 6) for end in ends]
    return found


def _indicators(actual_N: Targets, predictions: Sequence[Targets]) -> Floats:
    """Whether an image is of each class; then the same times whether each prediction is right."""
    classes_K = np.unique(actual_N)
    of_class_NK = (actual_N[:, None] == classes_K).astype(np.float64)
    right = [of_class_NK * (one == actual_N)[:, None] for one in predictions]
    return np.concatenate([of_class_NK, *right], axis=1)


def _figures(names: Sequence[str], drawn_GR: Floats, sums_GX: Floats) -> dict[str, Floats]:
    """Every figure (R,) of counts of patients (G, R)."""
    count_RK, *right = np.split(drawn_GR.T @ sums_GX, len(names) + 1, axis=1)
    found: dict[str, Floats] = {}
    # A class that a resample does not hold is left out of its mean.
    held_RK = np.where(count_RK > 0, count_RK, np.nan)
    for name, right_RK in zip(names, right, strict=True):
        found[f"{name}_accuracy"] = right_RK.sum(axis=1) / count_RK.sum(axis=1)
        found[f"{name}_balanced"] = np.nanmean(right_RK / held_RK, axis=1)
    first, second = names
    for figure in ("accuracy", "balanced"):
        found[f"gain_{figure}"] = found[f"{first}_{figure}"] - found[f"{second}_{figure}"]
    return found
