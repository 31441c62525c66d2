"""Free-response ROC and the table by diagnosis, against counting by hand."""

import numpy as np
import pytest

from workers.detection.matching import NONE, Outcomes, confusion, join, rates
from workers.metrics.bootstrap import Patients
from workers.metrics.froc import RATES, Froc, froc_figures
from workers.metrics.lesions import Lesions, lesion_figures


def outcomes(*entries: tuple[int, int, float]) -> Outcomes:
    """Entries of one image: actual, found, confidence."""
    actual, found, scores = zip(*entries, strict=True) if entries else ((), (), ())
    return Outcomes(
        np.asarray(actual, np.int64), np.asarray(found, np.int64), np.asarray(scores, np.float64)
    )


IMAGES = [
    outcomes((0, 0, 0.9), (NONE, 0, 0.8)),
    outcomes((1, 0, 0.7), (0, NONE, -1.0)),
    outcomes((NONE, 1, 0.6), (NONE, 1, 0.6)),
    outcomes(),
]
"""Three lesions, found as what it is, as another and not at all; three false positives."""
GROUPS = ["a", "a", "b", "c"]


def random_images(seed: int, count: int = 40) -> tuple[list[Outcomes], list[str]]:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        lesions = [
            (int(rng.integers(0, 3)), int(rng.integers(0, 3)), float(rng.random().__round__(1)))
            if rng.random() < 0.7
            else (int(rng.integers(0, 3)), NONE, -1.0)
            for _ in range(rng.integers(0, 4))
        ]
        over = [
            (NONE, int(rng.integers(0, 3)), float(rng.random().__round__(1)) * 0.8)
            for _ in range(rng.integers(0, 30))
        ]
        images.append(outcomes(*lesions, *over))
    return images, [f"p{number // 3}" for number in range(count)]


def by_hand(images: list[Outcomes], rate: float) -> float:
    """Try every confidence there is; take the best that keeps the rate."""
    every = join(images)
    lesions = every.actual_E != NONE
    best = 0.0
    for threshold in np.unique(every.scores_E[every.scores_E >= 0]):
        told = every.scores_E >= threshold
        if (told & ~lesions).sum() / len(images) <= rate + 1e-12:
            best = max(best, (told & lesions).sum() / lesions.sum())
    return float(best)


def test_the_curve_of_a_few_images() -> None:
    curve = Froc.of(IMAGES, GROUPS).curve()
    assert curve.false_positives_P.tolist() == [0, 0.25, 0.25, 0.75]  # of four images
    assert curve.sensitivity_P.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    found = froc_figures(Froc.of(IMAGES, GROUPS))
    values = [found["froc", f"{rate:g}"][0] for rate in RATES]
    assert values == pytest.approx([1 / 3] + [2 / 3] * 6)
    assert found["froc_mean", None][0] == pytest.approx(np.mean(values))


@pytest.mark.parametrize("seed", range(4))
def test_sensitivities_are_those_of_every_threshold_tried(seed: int) -> None:
    images, groups = random_images(seed)
    found = froc_figures(Froc.of(images, groups))
    for rate in RATES:
        assert found["froc", f"{rate:g}"][0] == pytest.approx(by_hand(images, rate))


def test_a_resample_is_what_copies_of_its_images_give() -> None:
    images, groups = random_images(7)
    patients = Patients.of(groups)
    (drawn,) = patients.draws(6, seed=3)
    weights = drawn[patients.index_N]
    found = Froc.of(images, groups).sensitivities(weights)
    for sample in range(6):
        copies = [
            one
            for one, times in zip(images, weights[:, sample], strict=True)
            for _ in range(int(times))
        ]
        assert found[:, sample] == pytest.approx([by_hand(copies, rate) for rate in RATES])
    (low, high), value = (
        froc_figures(Froc.of(images, groups), resamples=200)["froc", "1"][1] or (1, 0),
        by_hand(images, 1.0),
    )
    assert low < value < high


def test_without_lesions_there_is_no_sensitivity() -> None:
    healthy = [outcomes((NONE, 0, 0.5)), outcomes()]
    assert froc_figures(Froc.of(healthy, ["a", "b"]), resamples=10) == {}
    assert len(Froc.of(healthy, ["a", "b"]).curve().sensitivity_P) == 0
    unseen = [outcomes((0, NONE, -1.0))]
    assert froc_figures(Froc.of(unseen, ["a"]))["froc", "8"][0] == 0.0


def test_the_table_by_diagnosis() -> None:
    lesions = Lesions.of(IMAGES, GROUPS, ("cyst", "HCC", "Meta"), 0.65)
    found = {key: value for key, (value, _) in lesion_figures(lesions).items()}
    assert [found["total", name] for name in ("cyst", "HCC", "Meta", None)] == [2, 1, 0, 3]
    assert [found["over_detections", name] for name in ("cyst", "HCC", None)] == [1, 0, 1]
    assert [found["misses", name] for name in ("cyst", "HCC", None)] == [1, 0, 1]
    assert found["confusion", "HCC|cyst"] == 1
    assert found["confusion", "cyst|none"] == 1
    assert found["confusion", "none|cyst"] == 1
    assert found["confusion", "none|none"] == 0
    assert found["precision", "cyst"] == pytest.approx(1 / 3)
    assert found["recall", "cyst"] == pytest.approx(1 / 2)
    assert found["f1", "HCC"] == 0
    # A class without a lesion has no ratio, and counts in no mean.
    assert ("recall", "Meta") not in found
    assert found["recall", None] == pytest.approx((1 / 2 + 0) / 2)


def test_ratios_agree_with_the_matching_and_their_intervals_with_resampled_matrices() -> None:
    images, groups = random_images(11)
    classes = ("a", "b", "c")
    lesions = Lesions.of(images, groups, classes, 0.4)
    found = lesion_figures(lesions, resamples=50, seed=5)
    expected = rates(confusion(join(images), 3, 0.4))
    for name, one in zip(classes, expected, strict=True):
        assert found["precision", name][0] == pytest.approx(one.precision)
        assert found["recall", name][0] == pytest.approx(one.recall)
        assert found["f1", name][0] == pytest.approx(one.f1)
    patients = Patients.of(groups)
    drawn = np.concatenate(list(patients.draws(50, seed=5)), axis=1)
    recalls = []
    for weights in drawn[patients.index_N].T:
        copies = [
            one for one, times in zip(images, weights, strict=True) for _ in range(int(times))
        ]
        recalls.append(np.mean([one.recall for one in rates(confusion(join(copies), 3, 0.4))]))
    low, high = np.percentile(recalls, [2.5, 97.5])
    assert found["recall", None][1] == pytest.approx((low, high))
