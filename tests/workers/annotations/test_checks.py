"""What a box must be, whatever its source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.annotations.checks import Annotation, Categories, Given, check_all

ANY = Categories({})


@given(st.tuples(*[st.floats(-3, 63, width=32) for _ in range(4)]))
def test_what_passes_lies_in_the_image_and_hardly_moved(edges: tuple[float, ...]) -> None:
    x, y, w, h = edges
    box = Given("box", "cyst", x, y, w, h)
    out = max(-x, -y, x + w - 60, y + h - 40)
    beyond = out > 1 or x + w <= 0 or y + h <= 0 or x >= 60 or y >= 40
    if beyond or w <= 0 or h <= 0:
        with pytest.raises(RejectedImage) as refused:
            check_all([box], (40, 60), ANY, None)
        empty = w <= 0 or h <= 0
        reason = RejectReason.EMPTY_BOX if empty else RejectReason.OUTSIDE_IMAGE
        assert refused.value.reason is reason
        return
    (found,) = check_all([box], (40, 60), ANY, None)
    assert 0 <= found.x < 60 and 0 <= found.y < 40 and found.w > 0 and found.h > 0
    assert found.x + found.w <= 60 + 1e-6 and found.y + found.h <= 40 + 1e-6
    moved = (found.x - x, found.y - y, found.x + found.w - x - w, found.y + found.h - y - h)
    assert max(map(abs, moved)) <= 1 + 1e-6
    assert found.area == pytest.approx(found.w * found.h)


def test_boxes_within_stay_as_they_are() -> None:
    box = Given("box", None, 0.1, 0.2, 59.9, 39.8, area=5.5, iscrowd=True)
    assert check_all([box, box], (40, 60), Categories({"a": "b"}), "a") == [
        Annotation("b", 0.1, 0.2, 59.9, 39.8, 5.5, True)
    ]


def test_a_box_without_a_category_needs_a_label() -> None:
    box = Given("row 2", None, 0, 0, 1, 1)
    with pytest.raises(RejectedImage, match="row 2: no category, and the image has no label"):
        check_all([box], (4, 6), ANY, None)
    assert check_all([], (4, 6), ANY, None) == []


def test_five_faults_are_named_and_the_rest_is_counted() -> None:
    boxes = [Given(f"row {n}", "a", 0, 0, 0, 1) for n in range(2, 9)]
    with pytest.raises(RejectedImage) as refused:
        check_all(boxes, (4, 6), ANY, None)
    assert refused.value.detail.endswith("row 6: 0 x 1 px; and 2 more")
