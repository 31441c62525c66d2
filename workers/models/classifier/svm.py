"""Fitting a support vector machine to feature vectors, with scikit-learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from schemas.errors import RunError
from workers.models.classifier.svm_head import Floats, SvmParameters

FOLDS = 5
"""Parts in which decisions are held out for Platt scaling, at most."""
CACHE_MB = 500
"""Kernel values a machine keeps while it is fitted."""
MOST_RADIAL = 20_000
"""Rows for kernel rbf, at most: its time grows with their square. 8,000 rows of 256 features took
one machine 4 s; six fits a class make 8 minutes of three classes of 20,000 rows."""

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows to fit on, and rows held out."""


@dataclass(frozen=True)
class SvmSettings:
    """What determines a fit beside the features; see `schemas.specs.train.Svm`."""

    kernel: Literal["rbf", "linear"] = "rbf"
    """linear is liblinear's machine (squared hinge loss, in the primal), whose time grows with the
    rows: 32,000 of 256 features took 0.7 s."""
    c: float = 1.0
    gamma: Literal["scale"] | float = "scale"
    balanced: bool = False
    """Weight classes by their inverse frequency."""


def fit_svm(
    features_ND: NDArray[np.float32],
    targets_N: NDArray[np.int64],
    groups: Sequence[str],
    settings: SvmSettings,
) -> SvmParameters:
    """Fit one machine a class against the rest, or a single one for two classes.

    ``targets_N`` are 0 to K - 1, each at least once; ``groups`` are patients. Features are
    standardised over all rows. Probabilities follow by Platt scaling (Platt 1999), fitted on
    decisions held out by patient, since a machine's decisions on its own rows are too sure. The
    same rows in the same order give the same numbers.

    Raises:
        RunError: when a class has too few patients to hold any out, or when kernel rbf is asked for
            more rows than `MOST_RADIAL`.
    """
    _check_count(len(targets_N), settings)
    folds = patient_folds(targets_N, groups)
    scaler = StandardScaler()
    # Double precision from the first step: the scaler would compute in that of its input.
    standard_ND: Floats = scaler.fit_transform(features_ND.astype(np.float64))
    gamma = _gamma(standard_ND, settings)
    machine = _machine(settings, gamma)
    calibrated = CalibratedClassifierCV(machine, method="sigmoid", ensemble=False, cv=folds)
    fitted = OneVsRestClassifier(calibrated).fit(standard_ND, targets_N)
    machines = [one.calibrated_classifiers_[0] for one in fitted.estimators_]
    vectors_SD, duals_MS = _vectors([one.estimator for one in machines], standard_ND)
    platt = [one.calibrators[0] for one in machines]
    return SvmParameters(
        mean_D=scaler.mean_,
        scale_D=scaler.scale_,
        vectors_SD=vectors_SD,
        duals_MS=duals_MS,
        intercepts_M=np.array([one.estimator.intercept_[0] for one in machines]),
        gamma=np.array([gamma]),
        slopes_M=np.array([one.a_ for one in platt]),
        offsets_M=np.array([one.b_ for one in platt]),
    )


def _check_count(count: int, settings: SvmSettings) -> None:
    if settings.kernel == "rbf" and count > MOST_RADIAL:
        raise RunError(
            "Too many images for a support vector machine of kernel rbf, whose time grows with "
            "their square",
            where="svm.kernel",
            got=f"{count} images, at most {MOST_RADIAL}",
            remedy="take `kernel: linear`, or train on a balanced subset",
        )


def _machine(settings: SvmSettings, gamma: float) -> SVC | LinearSVC:
    weights = "balanced" if settings.balanced else None
    if settings.kernel == "linear":
        return LinearSVC(C=settings.c, class_weight=weights, dual=False)
    return SVC(C=settings.c, gamma=gamma, class_weight=weights, cache_size=CACHE_MB)


def patient_folds(targets_N: NDArray[np.int64], groups: Sequence[str]) -> list[Fold]:
    """Hold out every row once, whole patients at a time, with every class among those fitted.

    Five folds, or fewer where a class has fewer patients.

    Raises:
        RunError: when a class has too few patients for two folds.
    """
    of_group = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1]
    classes = np.unique(targets_N)
    patients = min(len(np.unique(of_group[targets_N == one])) for one in classes)
    for count in range(min(FOLDS, patients), 1, -1):
        splitter = StratifiedGroupKFold(count)
        folds: list[Fold] = list(splitter.split(targets_N, targets_N, of_group))
        if all(len(np.unique(targets_N[fit])) == len(classes) for fit, _ in folds):
            return folds
    raise RunError(
        "A support vector machine needs two patients of each class, to hold one out",
        got=f"{patients} patients of the smallest class",
        remedy="train on more images, or with `head: softmax`",
    )


def _gamma(standard_ND: Floats, settings: SvmSettings) -> float:
    if settings.kernel == "linear":
        return 0.0
    if settings.gamma == "scale":
        variance = float(standard_ND.var())
        return 1 / (standard_ND.shape[1] * variance) if variance else 1.0
    return settings.gamma


def _vectors(machines: Sequence[Any], standard_ND: Floats) -> tuple[NDArray[np.floating], Floats]:
    """The vectors of all machines, each once, and what each machine takes of them."""
    if isinstance(machines[0], LinearSVC):
        return np.concatenate([one.coef_ for one in machines]), np.eye(len(machines))
    rows_S = np.unique(np.concatenate([one.support_ for one in machines]))
    duals_MS = np.zeros((len(machines), len(rows_S)))
    for duals_S, one in zip(duals_MS, machines, strict=True):
        duals_S[np.searchsorted(rows_S, one.support_)] = one.dual_coef_[0]
    # Rounding standardised vectors to float32 moves decisions by less than 1e-7.
    return standard_ND[rows_S].astype(np.float32), duals_MS
