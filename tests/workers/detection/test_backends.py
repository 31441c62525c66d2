"""Backends are compared by what they detect."""

import numpy as np
import pytest

from schemas.bundle import DetectionSettings, Preprocessing, make_detector_id
from workers.detection.backends import compare
from workers.detection.boxes import Detections


def found(*rows: tuple[float, int, float]) -> Detections:
    """Left edge, category, confidence; boxes of 20 by 20 px."""
    return Detections(
        np.array([[x, 0, x + 20, 20] for x, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in rows], np.float32),
        np.array([category for _, category, _ in rows], np.int64),
    )


EAGER = found((0, 0, 0.9), (50, 1, 0.4))


@pytest.mark.parametrize(
    ("other", "largest", "same"),
    [
        (EAGER, 0.0, True),
        (found((1, 0, 0.895), (50, 1, 0.4)), 0.005, True),  # a shifted box is the same one
        (found((0, 0, 0.9)), 0.4, False),  # one is missing
        (found((0, 0, 0.9), (50, 1, 0.4), (90, 0, 0.02)), 0.02, True),  # a faint one came
        (found((0, 1, 0.9), (50, 1, 0.4)), 0.9, False),  # another category
        (found((0, 0, 0.9), (50, 1, 0.29)), 0.11, False),  # fell below the operating point
        (found(), 0.9, False),
    ],
)
def test_scores_of_matching_detections_are_compared(
    other: Detections, largest: float, same: bool
) -> None:
    for pair in ((EAGER, other), (other, EAGER)):
        difference, equal = compare(*pair, 0.3)
        assert difference == pytest.approx(largest, abs=1e-6)
        assert equal == same


def test_nothing_on_both_sides_is_the_same() -> None:
    assert compare(found(), found(), 0.3) == (0.0, True)


def test_the_operating_point_is_no_part_of_a_detectors_identity() -> None:
    weights = (2).to_bytes(8, "little") + b"{}"
    pixels = Preprocessing(recipe={"size": 64}, mean=(0.5,), std=(0.2,))

    def identity(**changes: float) -> str:
        settings = DetectionSettings(**({"score_threshold": 0.3} | changes))  # type: ignore[arg-type]
        return make_detector_id(weights, "resnet18", ("cyst",), pixels, settings)

    assert identity(score_threshold=0.5) == identity()
    assert identity(limit=50) != identity()
    assert identity(least_score=0.05) != identity()
