"""Boxes go where their pixels go: a painted rectangle is found again where its box says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.detection.augmentation import (
    BoxAugmentation,
    Marked,
    Placement,
    augment,
    change_tone,
    move_at_random,
    visible,
)
from workers.detection.boxes import Boxes
from workers.detection.mosaic import compose, make_mosaic, mix

SIDE = 96
PLAIN = BoxAugmentation(tone=0.0, least_share=0.0)

rectangles = st.tuples(
    st.integers(0, SIDE - 8), st.integers(0, SIDE - 8), st.integers(8, 60), st.integers(8, 60)
)


def painted(rectangle: tuple[int, int, int, int], value: int = 255, category: int = 0) -> Marked:
    """A black image with one rectangle, and its box."""
    x, y, w, h = rectangle
    right, bottom = min(x + w, SIDE), min(y + h, SIDE)
    pixels_CSS = np.zeros((1, SIDE, SIDE), np.uint8)
    pixels_CSS[0, y:bottom, x:right] = value
    corners_B4 = np.array([[x, y, right, bottom]], np.float32)
    return Marked(
        pixels_CSS, Boxes(corners_B4, np.array([category], np.int64), np.zeros(1, np.bool_))
    )


def extent(plane_SS: NDArray[np.uint8], at_least: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the pixels that are bright, or None."""
    y, x = np.nonzero(plane_SS >= at_least)
    if not len(x):
        return None
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def check(marked: Marked, half: int) -> None:
    """The only box encloses the painted pixels to within one pixel."""
    found = extent(marked.pixels_CSS[0], half)
    if found is None:
        for left, top, right, bottom in marked.boxes.corners_B4:
            assert min(right - left, bottom - top) < 3  # a sliver blurred away
        return
    if not len(marked.boxes):  # what is left is too thin to be learned
        assert min(found[2] - found[0], found[3] - found[1]) <= 3
        return
    assert np.abs(marked.boxes.corners_B4[0] - np.array(found)).max() <= 1


@given(rectangle=rectangles, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_a_window_and_a_mirror_carry_boxes_along(
    rectangle: tuple[int, int, int, int], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    check(move_at_random(painted(rectangle), PLAIN, generator), 128)


@given(
    four=st.lists(rectangles, min_size=4, max_size=4),
    lit=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_a_mosaic_carries_boxes_along(
    four: list[tuple[int, int, int, int]], lit: int, seed: int
) -> None:
    images = [painted(one, 255 if place == lit else 0) for place, one in enumerate(four)]
    images = [
        one if place == lit else Marked(one.pixels_CSS, Boxes.none())
        for place, one in enumerate(images)
    ]
    found = make_mosaic(images, PLAIN, np.random.default_rng(seed))
    check(found, 128)


@given(one=rectangles, other=rectangles, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_every_picture_composed_keeps_its_boxes(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int], seed: int
) -> None:
    """Whatever is drawn: boxes lie in the picture, and bright pixels lie in boxes."""
    chosen = BoxAugmentation(mosaic=0.5, mixup=0.5, tone=0.0, least_share=0.0)
    found = compose(painted(one), lambda: painted(other), chosen, np.random.default_rng(seed))
    corners_B4 = found.boxes.corners_B4
    assert ((corners_B4 >= 0) & (corners_B4 <= SIDE)).all()
    assert (corners_B4[:, 2:] - corners_B4[:, :2] >= 2).all()
    lit_SS = found.pixels_CSS[0] >= 100
    for left, top, right, bottom in corners_B4:
        lit_SS[int(top) : int(np.ceil(bottom)) + 1, int(left) : int(np.ceil(right)) + 1] = False
        lit_SS[max(int(top) - 1, 0), :] = False
        lit_SS[:, max(int(left) - 1, 0)] = False
    # What is left without a box is thinner than a box may be.
    rows, columns = lit_SS.any(axis=1).sum(), lit_SS.any(axis=0).sum()
    assert min(rows, columns) <= 3 * 5


def test_a_placement_moves_corners_as_arithmetic_says() -> None:
    """Half the size, 10 px to the right, 20 px down; mirrored first."""
    corners_B4 = np.array([[10, 20, 30, 60]], np.float32)
    assert Placement(0.5, 10, 20).move(corners_B4, 100).tolist() == [[15, 30, 25, 50]]
    mirrored = Placement(0.5, 10, 20, mirrored=True).move(corners_B4, 100)
    assert mirrored.tolist() == [[45, 30, 55, 50]]


def test_mirroring_alone_is_exact() -> None:
    marked = painted((3, 5, 20, 30))
    moved = Placement(1.0, 0, 0, mirrored=True)
    assert (moved.carry(marked.pixels_CSS) == marked.pixels_CSS[:, :, ::-1]).all()
    assert moved.move(marked.boxes.corners_B4, SIDE).tolist() == [[SIDE - 23, 5, SIDE - 3, 35]]


def test_what_is_hardly_left_is_dropped_but_ignored_regions_stay() -> None:
    """10 x 10 boxes of which 30, 20 and 5 % stay in; the last is an ignored region."""
    corners_B4 = np.array([[-7, 0, 3, 10], [-8, 20, 2, 30], [-9.5, 40, 0.5, 50]], np.float32)
    boxes = Boxes(corners_B4, np.array([0, 1, 2]), np.array([False, False, True]))
    kept = visible(boxes, Placement(1, 0, 0), SIDE, (0, 0, SIDE, SIDE), least_share=0.25)
    assert kept.categories_B.tolist() == [0, 2]
    assert kept.corners_B4.tolist() == [[0, 0, 3, 10], [0, 40, 0.5, 50]]


def test_images_without_boxes_are_mirrored_mixed_and_never_waited_for() -> None:
    """A data set of nothing but normal images ends, and half of it is mirrored."""
    generator = np.random.default_rng(0)
    slope_CSS = np.broadcast_to(np.arange(SIDE, dtype=np.uint8) * 2, (1, SIDE, SIDE))
    normal = Marked(np.ascontiguousarray(slope_CSS), Boxes.none())
    mirrored = 0
    for _ in range(200):
        moved = move_at_random(normal, PLAIN, generator)
        middle = moved.pixels_CSS[0, SIDE // 2].astype(int)
        mirrored += middle[SIDE // 3] > middle[2 * SIDE // 3]
    assert 80 < mirrored < 120
    busy = BoxAugmentation(mosaic=1.0, mixup=1.0)
    assert not len(compose(normal, lambda: normal, busy, generator).boxes)


def test_mixing_halves_both_and_keeps_all_boxes() -> None:
    found = mix(painted((0, 0, 10, 10), 200, 1), painted((5, 5, 10, 10), 100, 2))
    assert found.pixels_CSS[0, 2, 2] == 100
    assert found.pixels_CSS[0, 7, 7] == 150
    assert found.pixels_CSS[0, 12, 12] == 50
    assert found.boxes.categories_B.tolist() == [1, 2]


def test_equal_seeds_give_equal_pictures() -> None:
    chosen = BoxAugmentation(mosaic=0.5, mixup=0.5)

    def once() -> Marked:
        generator = np.random.default_rng((1, 2, 3))
        return compose(painted((4, 4, 40, 30)), lambda: painted((9, 9, 20, 20)), chosen, generator)

    one, other = once(), once()
    assert (one.pixels_CSS == other.pixels_CSS).all()
    assert (one.boxes.corners_B4 == other.boxes.corners_B4).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_tone_changes_levels_and_no_box(channels: int) -> None:
    rng = np.random.default_rng(0)
    pixels_CSS = rng.integers(60, 190, (channels, SIDE, SIDE), np.uint8)
    marked = Marked(pixels_CSS, painted((4, 4, 40, 30)).boxes)
    found = change_tone(marked, 0.4, np.random.default_rng(1))
    assert found.pixels_CSS.shape == pixels_CSS.shape
    assert found.pixels_CSS.dtype == np.uint8
    assert (found.pixels_CSS != pixels_CSS).mean() > 0.5
    assert found.boxes is marked.boxes
    assert change_tone(marked, 0.0, np.random.default_rng(1)) is marked


def test_scales_stay_within_the_window() -> None:
    """A window of 0.6 to 1.3 of the side: a square of 20 px becomes 15.4 to 33.3 px."""
    generator = np.random.default_rng(3)
    marked = painted((38, 38, 20, 20))
    sides = []
    for _ in range(300):
        found = augment(marked, BoxAugmentation(least_share=0.999), generator)
        for left, _, right, _ in found.boxes.corners_B4:
            sides.append(right - left)
    assert 20 / 1.3 - 0.01 <= min(sides) < 17
    assert 30 < max(sides) <= 20 / 0.6 + 0.01
