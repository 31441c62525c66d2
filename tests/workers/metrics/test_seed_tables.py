"""Figures printed in two studies, held against our functions.

One compares detectors of liver tumours (its figures 4 and 6, tables 2 to 4), the other classifiers
of photographs of hands (its example matrix and its table of results). Where a printed value does
not follow from the printed matrix, both values stand here.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from workers.metrics.bootstrap import Patients
from workers.metrics.lesions import Lesions, lesion_figures
from workers.metrics.severity import (
    custom_precision,
    expected_cost,
    quadratic_kappa,
    under_triage,
)

Floats = NDArray[np.float64]

TUMOURS = ("cyst", "HCC", "hemangioma", "Meta")

FIGURE_4A = (
    (0, 851, 371, 468, 28),
    (297, 2708, 17, 15, 0),
    (371, 25, 810, 152, 13),
    (591, 33, 126, 2203, 9),
    (339, 37, 396, 141, 108),
)
"""YOLOX. Row by actual, column by predicted class: none, then the tumours."""
FIGURE_4B = (
    (0, 619, 147, 398, 173),
    (208, 2791, 6, 18, 14),
    (271, 12, 871, 103, 114),
    (269, 20, 49, 2558, 66),
    (265, 12, 115, 80, 549),
)
"""CenterNet."""
FIGURE_6A = (
    (0, 1871, 398, 725, 229),
    (327, 2649, 14, 29, 18),
    (804, 33, 336, 125, 73),
    (1574, 75, 93, 1168, 52),
    (579, 51, 115, 90, 186),
)
"""CenterNet on a frozen SimSiam backbone; no table is printed for it."""
FIGURE_6B = (
    (0, 492, 168, 301, 172),
    (357, 2651, 8, 12, 9),
    (339, 8, 825, 97, 102),
    (465, 23, 57, 2359, 58),
    (290, 13, 84, 80, 554),
)
"""CenterNet on a SimSiam backbone that was unfrozen in steps."""


@dataclass(frozen=True)
class Printed:
    """A printed table; a last value of each column is that of all tumours together."""

    matrix: tuple[tuple[int, ...], ...]
    total: tuple[int, ...]
    overdetected: tuple[int, ...]
    missed: tuple[int, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    wrong: dict[tuple[str, str], float] = field(default_factory=dict)
    """Cells that do not follow from the matrix, and what follows from it."""


TABLES = {
    "table 2": Printed(
        FIGURE_4A,
        (3037, 1371, 2962, 1021, 8391),
        (851, 371, 468, 28, 1718),
        (297, 371, 591, 339, 1598),
        (0.7411, 0.4709, 0.7395, 0.6855, 0.6588),
        (0.8917, 0.5908, 0.7438, 0.1058, 0.5830),
        (0.8094, 0.5241, 0.7416, 0.1832, 0.5646),
        # The mean printed below it and the F1 beside it are those of 0.6835.
        {("precision", "Meta"): 0.6835},
    ),
    "table 3": Printed(
        FIGURE_4B,
        (3037, 1371, 398, 1021, 8391),
        (619, 147, 269, 173, 1208),
        (208, 271, 235, 265, 979),
        (0.8080, 0.7332, 0.8103, 0.6339, 0.7377),
        (0.9190, 0.6353, 0.8636, 0.5377, 0.7389),
        (0.8600, 0.6807, 0.8361, 0.5669, 0.7359),
        {
            # The row of hemangioma is moved by one: its total holds what was overdetected, the
            # next column what was missed. The sums were made of the moved values.
            ("total", "hemangioma"): 2962,
            ("overdetected", "hemangioma"): 398,
            ("missed", "hemangioma"): 269,
            ("overdetected", "all"): 1337,
            ("missed", "all"): 1013,
            # The mean and the F1 are those of 0.5993.
            ("precision", "Meta"): 0.5993,
        },
    ),
    "table 4": Printed(
        FIGURE_6B,
        (3037, 1371, 398, 1021, 8391),
        (492, 168, 301, 172, 1133),
        (357, 339, 465, 290, 1451),
        (0.8318, 0.7224, 0.8280, 0.6190, 0.7503),
        (0.8729, 0.6013, 0.7964, 0.5426, 0.7034),
        (0.8519, 0.6566, 0.8119, 0.5783, 0.7247),
        {("total", "hemangioma"): 2962, ("recall", "HCC"): 0.6018},
    ),
}


COLUMNS = {
    "total": "total",
    "overdetected": "over_detections",
    "missed": "misses",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
}
"""Our metric of each printed column."""


def _computed(matrix: tuple[tuple[int, ...], ...]) -> dict[str, list[float]]:
    """The columns of a table out of its matrix; the last value is the mean or the sum."""
    found = lesion_figures(Lesions(np.asarray([matrix]), TUMOURS, Patients.of(["all"])))
    return {
        column: [found[metric, name][0] for name in (*TUMOURS, None)]
        for column, metric in COLUMNS.items()
    }


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_the_detectors_follow_from_their_matrices(name: str) -> None:
    printed = TABLES[name]
    differing = {}
    for column, values in _computed(printed.matrix).items():
        shown = getattr(printed, column)
        for row, value, cell in zip((*TUMOURS, "all"), values, shown, strict=True):
            if abs(value - cell) > 0.00005 + 1e-9:
                differing[column, row] = round(value, 4)
    assert differing == printed.wrong


@pytest.mark.parametrize("name", TABLES)
def test_sums_and_means_follow_from_the_cells_above_them(name: str) -> None:
    """Which tells a misprinted cell from a wrong matrix."""
    printed = TABLES[name]
    for column in ("overdetected", "missed"):
        *cells, total = getattr(printed, column)
        assert sum(cells) == total  # of the moved row, too
    for column in ("precision", "recall", "f1"):
        *cells, mean = getattr(printed, column)
        misprinted = [row for row in TUMOURS if (column, row) in printed.wrong]
        corrected = [
            printed.wrong.get((column, row), cell) for row, cell in zip(TUMOURS, cells, strict=True)
        ]
        assert np.mean(corrected) == pytest.approx(mean, abs=0.0001)
        for row in misprinted:
            place = TUMOURS.index(row)
            f1 = 2 / sum(
                1 / (corrected if one == column else getattr(printed, one))[place]
                for one in ("precision", "recall")
            )
            assert f1 == pytest.approx(printed.f1[place], abs=0.0001)


@pytest.mark.parametrize("matrix", [FIGURE_4A, FIGURE_4B, FIGURE_6A, FIGURE_6B])
def test_all_matrices_are_of_the_same_images(matrix: tuple[tuple[int, ...], ...]) -> None:
    counts = np.asarray(matrix)
    assert counts[1:].sum(axis=1).tolist() == [3037, 1371, 2962, 1021]
    assert counts[1:].sum() == 8391
    assert counts[0, 0] == 0  # images without a tumour are not counted


def test_the_matrix_without_a_table() -> None:
    found = _computed(FIGURE_6A)
    assert found["precision"] == pytest.approx([0.5661, 0.3515, 0.5466, 0.3333, 0.4494], abs=5e-5)
    assert found["recall"] == pytest.approx([0.8722, 0.2451, 0.3943, 0.1822, 0.4235], abs=5e-5)
    assert found["f1"] == pytest.approx([0.6866, 0.2888, 0.4581, 0.2356, 0.4173], abs=5e-5)


EXAMPLE = np.asarray([[6, 0, 0], [4, 4, 1], [3, 3, 3]], float)
"""The hand study's example: normal, Heberden's nodes, rheumatoid arthritis."""
HAND_WEIGHTS = np.asarray([[0, 1, 1], [1.5, 0, 1], [2, 1.2, 0]])
"""Its weights of false positives: predicted class by row, actual by column."""

HANDS = {
    "CNN categorical": ((0.0150, 0.2100), (0.0100, 0.2100), (0.0158, 0.2417), (0.0231, 0.3094)),
    "CNN binary": ((0.0225, 0.2994), (0.0175, 0.2350), (0.0050, 0.1544), (0.0050, 0.1572)),
    "CNN custom": ((0.4967, 1.2883), (0.4392, 1.2456), (0.0406, 0.4994), (0.1883, 1.0361)),
    "SVM categorical": ((0.0100, 0.1900), (0.0100, 0.2500), (0.0000, 0.1267), (0.0125, 0.3267)),
    "SVM binary": ((0.0150, 0.2794), (0.0175, 0.2150), (0.0050, 0.1989), (0.0125, 0.2594)),
    "SVM custom": ((0.0000, 0.0200), (0.0000, 0.0400), (0.0181, 0.2744), (0.0000, 0.3844)),
}
"""Its results (custom_multi, custom_plus) of VGG16, VGG19, ResNet50, MobileNetV2: means of five
folds."""
FOLDS = 5


def test_the_example_of_the_hand_study() -> None:
    rates = under_triage(EXAMPLE)
    assert rates.tolist() == pytest.approx([4 / 9, 6 / 9])
    assert rates.sum() == pytest.approx(10 / 9)
    assert rates.prod() == pytest.approx(24 / 81)
    expected = (6 / (6 + 4 + 3) + 4 / (4 + 0 * 1.5 + 3) + 3 / (3 + 0 * 2 + 1 * 1.2)) / 3
    assert custom_precision(EXAMPLE, HAND_WEIGHTS) == pytest.approx(expected)
    assert expected == pytest.approx(0.5824, abs=5e-5)
    costs = np.abs(np.subtract.outer(range(3), range(3)))
    assert expected_cost(EXAMPLE, costs) == pytest.approx(14 / 24)
    assert quadratic_kappa(EXAMPLE) == pytest.approx(1 - 20 / 34.25)


def _largest_mean(mean_of_sums: float, product_of: int) -> float:
    """The largest mean over folds that a product of shares can have, given that of their sums.

    A product of k shares is at most (sum / k)^k, which is convex: its mean is largest when the sum
    is heaped on as few folds as can hold it. Of three cells two share a row: they hold at most 1,
    so the sum is at most 2 either way.
    """
    left, best = mean_of_sums * FOLDS, 0.0
    for _ in range(FOLDS):
        taken = min(left, 2.0)
        left -= taken
        crowded = product_of == 3 and taken > 1.5  # two of the cells are at a half already
        best += (taken - 1) / 4 if crowded else (taken / product_of) ** product_of
    return best / FOLDS


def test_custom_multi_is_a_product_of_two_rates_not_of_three_cells() -> None:
    cells = [cell for row in HANDS.values() for cell in row]
    for multi, plus in cells:
        assert multi <= _largest_mean(plus + 0.00005, 2) + 0.00005
        assert multi >= plus - 1 - 0.0001  # a b >= a + b - 1 for shares
    impossible = [
        multi for multi, plus in cells if multi > _largest_mean(plus + 0.00005, 3) + 0.00005
    ]
    assert len(impossible) == 11
    assert {0.0150, 0.4967, 0.4392} <= set(impossible)


def test_custom_plus_is_a_sum_of_shares_of_each_actual_class() -> None:
    """Shares of all images would add up to 1 at most; and every printed value is a mean over five
    folds of eighths, ninths and tenths, as shares of small classes are."""
    plus = np.asarray([cell[1] for row in HANDS.values() for cell in row])
    assert plus.max() > 1.2
    steps = plus * FOLDS * 360
    assert np.abs(steps - steps.round()).max() <= 0.00005 * FOLDS * 360
