"""Two models on the same images: DeLong's test of areas, McNemar's of labels, and differences."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from schemas.bundle import OperatingPoint
from workers.metrics.bootstrap import Patients, resampled_intervals
from workers.metrics.classification import Figure, Key, Scored, class_rankings
from workers.metrics.scores import Ranking, judged_places
from workers.models.classifier.outputs import predicted

Floats = NDArray[np.float64]

MOST_EXACT = 1000
"""Images judged differently up to which McNemar's test is computed exactly."""


@dataclass(frozen=True)
class Areas:
    """AUCs of two models on the same images, and how sure their difference is."""

    auc_2: Floats
    covariance_22: Floats

    @property
    def p(self) -> float:
        """Two-sided probability of a difference like this one between equal models.

        1 where there is no difference; NaN where there is one but no spread to judge it by, as
        between a perfect model and one that ranks nothing.
        """
        first, second = self.auc_2
        difference = first - second
        variance = np.trace(self.covariance_22) - 2 * self.covariance_22[0, 1]
        # Rounding leaves traces where the two models rank alike.
        if abs(difference) < 1e-12:
            return 1.0
        if variance <= 1e-18:
            return float("nan")
        return float(2 * stats.norm.sf(abs(difference) / np.sqrt(variance)))


def compare_areas(
    is_positive_N: NDArray[np.bool_],
    scores_2N: NDArray[np.floating],
    index_N: NDArray[np.int64] | None = None,
) -> Areas | None:
    """Covariance of two AUCs on the same images by DeLong's method (1988), in O(N log N).

    The components come from midranks (Sun and Xu 2014). With ``index_N``, the number of each
    image's patient, images of a patient may depend on each other (Obuchowski 1997); with one image
    a patient both are equal. None where a side has fewer than two images (or patients): nothing
    is known of its spread then.
    """
    components = [_components(is_positive_N, scores_N) for scores_N in scores_2N]
    of_positive_2P = np.stack([one for one, _ in components])
    of_negative_2Q = np.stack([other for _, other in components])
    count = len(is_positive_N)
    index_N = np.arange(count) if index_N is None else index_N
    positive_2G, positives = _by_patient(of_positive_2P, index_N[is_positive_N], index_N)
    negative_2G, negatives = _by_patient(of_negative_2Q, index_N[~is_positive_N], index_N)
    if min(positives, negatives) < 2:
        return None
    positive_2G /= of_positive_2P.shape[1]
    negative_2G /= of_negative_2Q.shape[1]
    patients = len(np.unique(index_N))
    mixed_22 = positive_2G @ negative_2G.T  # 0 where no patient has images on both sides
    covariance_22 = (
        positives / (positives - 1) * (positive_2G @ positive_2G.T)
        + negatives / (negatives - 1) * (negative_2G @ negative_2G.T)
        + patients / (patients - 1) * (mixed_22 + mixed_22.T)
    )
    return Areas(of_positive_2P.mean(axis=1), covariance_22)


def mcnemar(first_right_N: NDArray[np.bool_], second_right_N: NDArray[np.bool_]) -> float:
    """Two-sided p that two models are right equally often on the same images (McNemar 1947).

    Exact binomial up to `MOST_EXACT` images that one alone has right, beyond them the chi-squared
    approximation with the correction for continuity.
    """
    first_alone = int((first_right_N & ~second_right_N).sum())
    second_alone = int((~first_right_N & second_right_N).sum())
    judged = first_alone + second_alone
    if judged == 0:
        return 1.0
    if judged <= MOST_EXACT:
        return float(stats.binomtest(first_alone, judged).pvalue)
    statistic = max(abs(first_alone - second_alone) - 1, 0) ** 2 / judged
    return float(stats.chi2.sf(statistic, df=1))


@dataclass(frozen=True)
class Rival:
    """The model compared with, on the same images."""

    name: str
    scores_NC: NDArray[np.float32]
    """Probabilities in the first model's order of classes."""
    point: OperatingPoint | None


def comparison_figures(
    scored: Scored,
    point: OperatingPoint | None,
    rival: Rival,
    *,
    resamples: int = 0,
    seed: int = 0,
) -> list[Figure]:
    """Differences (this model minus the rival) and tests of them.

    A category is the rival's name, or ``name|class`` for one class against the rest.
    ``delong_p`` and ``mcnemar_p`` treat images as independent of each other;
    ``delong_patients_p`` and all intervals do not.
    """
    pair = _Pair(scored, point, rival)
    values = {key: float(value[0]) for key, value in pair.values(pair.patients.once()).items()}
    intervals = resampled_intervals(pair.values, pair.patients, resamples, seed)
    values["mcnemar_p", rival.name] = mcnemar(*pair.right)
    return [
        Figure(metric, category, value, intervals.get((metric, category)), len(scored))
        for (metric, category), value in (values | _tests(pair)).items()
        if not np.isnan(value)
    ]


@dataclass(frozen=True)
class _Pair:
    scored: Scored
    point: OperatingPoint | None
    rival: Rival

    @cached_property
    def patients(self) -> Patients:
        return Patients.of(self.scored.groups)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each model's label is right: (2, N)."""
        actual_N, classes = self.scored.actual_N, self.scored.classes
        first = predicted(self.scored.scores_NC, classes, self.point)
        second = predicted(self.rival.scores_NC, classes, self.rival.point)
        return np.stack([first == actual_N, second == actual_N])

    @cached_property
    def rankings(self) -> tuple[list[Ranking], list[Ranking]]:
        rival = Scored(
            self.scored.classes, self.scored.actual_N, self.rival.scores_NC, self.scored.groups
        )
        return class_rankings(self.scored, self.patients), class_rankings(rival, self.patients)

    @cached_property
    def judged(self) -> dict[str, int]:
        """Classes judged against the rest, by category: of two classes the positive one."""
        classes = self.scored.classes
        places = judged_places(classes, self.point)
        if len(places) == 1:
            return {self.rival.name: places[0]}
        return {f"{self.rival.name}|{classes[place]}": place for place in places}

    @cached_property
    def gained(self) -> Floats:
        """By patient (G, 2): images that this model alone has right less the rival's, and all."""
        gained_N = self.right[0].astype(np.float64) - self.right[1]
        return self.patients.sums(np.stack([gained_N, np.ones(len(gained_N))], axis=1))

    def values(self, drawn_GR: Floats) -> dict[Key, Floats]:
        """Differences (R,) of counts of patients (G, R)."""
        sums_RK = drawn_GR.T @ self.gained
        first, second = self.rankings
        by_class = {
            category: first[index].areas(drawn_GR)[0] - second[index].areas(drawn_GR)[0]
            for category, index in self.judged.items()
        }
        values: dict[Key, Floats] = {
            ("accuracy_difference", self.rival.name): sums_RK[:, 0] / sums_RK[:, 1],
            ("auc_difference", self.rival.name): np.mean(list(by_class.values()), axis=0),
        }
        return values | {("auc_difference", one): value for one, value in by_class.items()}


def _tests(pair: _Pair) -> dict[Key, float]:
    values: dict[Key, float] = {}
    for category, index in pair.judged.items():
        is_class_N = pair.scored.actual_N == index
        scores_2N = np.stack([pair.scored.scores_NC[:, index], pair.rival.scores_NC[:, index]])
        for metric, index_N in (("delong_p", None), ("delong_patients_p", pair.patients.index_N)):
            areas = compare_areas(is_class_N, scores_2N, index_N)
            if areas is not None:
                values[metric, category] = areas.p
    return values


def _components(
    is_positive_N: NDArray[np.bool_], scores_N: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Shares of pairs ranked rightly: of each positive's pairs, and of each negative's.

    Ties count a half.
    """
    positive_P, negative_Q = scores_N[is_positive_N], scores_N[~is_positive_N]
    ranks_N = stats.rankdata(np.concatenate([positive_P, negative_Q]))
    beaten_P = ranks_N[: len(positive_P)] - stats.rankdata(positive_P)
    beating_Q = ranks_N[len(positive_P) :] - stats.rankdata(negative_Q)
    return beaten_P / max(len(negative_Q), 1), 1 - beating_Q / max(len(positive_P), 1)


def _by_patient(
    components_2X: Floats, index_X: NDArray[np.int64], index_N: NDArray[np.int64]
) -> tuple[Floats, int]:
    """Centred components summed over each patient (2, G), and how many patients have some."""
    if not components_2X.shape[1]:
        return np.zeros((2, 0)), 0
    centred_2X = components_2X - components_2X.mean(axis=1, keepdims=True)
    patients = int(index_N.max()) + 1
    sums = [np.bincount(index_X, weights=one, minlength=patients) for one in centred_2X]
    return np.stack(sums), len(np.unique(index_X))
