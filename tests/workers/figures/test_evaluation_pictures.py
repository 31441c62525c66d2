"""Pictures: that they hold the figures' values, are equal for equal content, and need no pyplot."""

import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.testing import assert_allclose
from PIL import Image
from sklearn import metrics as sk

from schemas.bundle import OperatingPoint
from workers.figures.canvas import DPI, house_style, new_axes, to_png
from workers.figures.curves import precision_recall_axes, roc_axes
from workers.figures.evaluation import draw_evaluation
from workers.figures.matrix import confusion_axes
from workers.figures.reliability import reliability_axes
from workers.metrics.classification import Scored
from workers.metrics.reliability import calibration_error

POINT = OperatingPoint(positive="b", threshold=0.4, rule="youden")


def _scored(classes: int, count: int = 200) -> Scored:
    generator = np.random.default_rng(classes)
    actual = generator.integers(0, classes, count)
    raised = np.exp(generator.normal(size=(count, classes)) + 1.2 * np.eye(classes)[actual])
    scores = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return Scored(tuple("abcd"[:classes]), actual, scores, [str(n) for n in range(count)])


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_the_roc_curve_is_scikit_learns_with_the_operating_point_on_it() -> None:
    scored = _scored(2)
    axes = roc_axes(scored, POINT)
    chance, curve, mark = axes.get_lines()
    false_share, true_share, _ = sk.roc_curve(
        scored.actual_N == 1, scored.scores_NC[:, 1], drop_intermediate=False
    )
    assert_allclose(curve.get_xydata(), np.stack([false_share, true_share], axis=1))
    assert_allclose(chance.get_xydata(), [[0, 0], [1, 1]])
    called = scored.scores_NC[:, 1] >= 0.4
    truth = scored.actual_N == 1
    expected = [[1 - sk.recall_score(~truth, ~called), sk.recall_score(truth, called)]]
    assert_allclose(mark.get_xydata(), expected)
    auc = sk.roc_auc_score(truth, scored.scores_NC[:, 1])
    assert _legend(axes) == [f"b: AUC {auc:.3f}", "threshold 0.4"]


def test_three_classes_have_a_curve_each_and_no_operating_point() -> None:
    scored = _scored(3)
    axes = precision_recall_axes(scored, None)
    expected = [
        sk.average_precision_score(scored.actual_N == index, scored.scores_NC[:, index])
        for index in range(3)
    ]
    assert _legend(axes) == [
        f"{name}: AP {value:.3f}" for name, value in zip("abc", expected, strict=True)
    ]
    assert len(axes.get_lines()) == 6  # each with the line of a model that knows nothing
    assert len(roc_axes(scored, None).get_lines()) == 4


def test_the_reliability_diagram_shows_the_error_and_all_images() -> None:
    scored = _scored(3)
    axes = reliability_axes(scored)
    error = calibration_error(scored.actual_N, scored.scores_NC)
    assert f"ECE {error:.3f}" in _legend(axes)
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1)
    line = axes.get_lines()[1]
    right = scored.scores_NC.argmax(axis=1) == scored.actual_N
    winning = scored.scores_NC.max(axis=1)
    last = winning > 14 / 15
    points = np.asarray(line.get_xydata())
    assert points[-1] == pytest.approx([winning[last].mean(), right[last].mean()], abs=1e-6)


def test_the_matrix_shows_counts_and_shares_of_the_actual_class() -> None:
    long_name = "a class with a name far too long to be shown"
    axes = confusion_axes(np.asarray([[1200, 300], [0, 0]]), (long_name, "b"))
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["1,200\n80%", "300\n20%", "0\n0%", "0\n0%"]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["a class with a name far…", "b"]


def test_equal_images_make_equal_bytes_whatever_the_users_settings() -> None:
    scored = _scored(2)
    first = draw_evaluation(scored, POINT)
    assert sorted(first) == ["confusion.png", "precision-recall.png", "reliability.png", "roc.png"]
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 10}):
        assert draw_evaluation(scored, POINT) == first
    assert dict(matplotlib.rcParams) == before
    for data in first.values():
        picture = Image.open(io.BytesIO(data))
        assert picture.format == "PNG"
        assert min(picture.size) >= 4 * DPI
        assert not {"Software", "Creation Time"} & set(picture.info)
        assert picture.convert("L").getextrema()[0] < 100
    moved = draw_evaluation(scored, POINT.model_copy(update={"threshold": 0.9}))
    assert {name for name in first if moved[name] != first[name]} == {
        "confusion.png",
        "precision-recall.png",
        "roc.png",
    }


def test_without_images_on_both_sides_there_are_no_curves() -> None:
    scored = _scored(3).taken(_scored(3).actual_N == 1)
    assert sorted(draw_evaluation(scored, None)) == ["confusion.png", "reliability.png"]


def test_a_dollar_sign_in_a_name_is_no_formula() -> None:
    with house_style():
        axes = new_axes()
        axes.set_title("a $ and another $\\frac$")
        assert to_png(axes).startswith(b"\x89PNG")


def test_drawing_loads_no_pyplot_and_evaluating_no_matplotlib() -> None:
    code = (
        "import sys; import workers.metrics.evaluating; assert 'matplotlib' not in sys.modules; "
        "import workers.figures.evaluation; assert 'matplotlib.pyplot' not in sys.modules; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
