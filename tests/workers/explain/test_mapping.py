"""Between cells, input and original: against OpenCV's resizing, and against counting pixels."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from workers.explain.mapping import Placement, linear_weights, overlap_shares
from workers.explain.pointing import find
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import prepare
from workers.pixels.steps import Recipe


def _placed(view: NDArray[np.uint8], recipe: Recipe) -> Placement:
    pixels = Pixels(view, 8, window=None, inverted=False, spacing_mm=None)
    height, width = view.shape[:2]
    return Placement(prepare(recipe, pixels).geometry, recipe.size, height, width)


def _square(height: int, width: int, recipe: Recipe) -> Placement:
    return _placed(np.full((height, width), 90, np.uint8), recipe)


@pytest.mark.parametrize(("cells", "size"), [(7, 224), (2, 64), (3, 100), (1, 32)])
def test_between_cells_a_map_is_what_opencv_makes_of_it(cells: int, size: int) -> None:
    heat = np.random.default_rng(0).random((cells, cells), dtype=np.float32)
    found = _square(size, size, Recipe(size=size)).heat_on_input(heat)
    expected = cv2.resize(heat, (size, size), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_shares_of_intervals_are_areas() -> None:
    shares = overlap_shares(np.array([-1.0, 1.0, 2.5, 4.0]), 3)
    expected = [[0.5, 0, 0], [0, 2 / 3, 1 / 3], [0, 0, 1 / 3]]
    np.testing.assert_allclose(shares, expected, atol=1e-7)
    assert linear_weights(3, np.array([0.2, 1.0, 3.0])) == pytest.approx(
        np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]])
    )


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(300, 180), (40, 90), (64, 64)])
def test_a_mask_goes_where_its_pixels_go(height: int, width: int, resize: str) -> None:
    """The mask, prepared as an image of its own, is the same up to 8-bit rounding."""
    mask = np.zeros((height, width), np.bool_)
    mask[height // 5 : height // 2, width // 3 : width // 3 + 17] = True
    recipe = Recipe(size=64, resize=resize)
    place = _square(height, width, recipe)
    view = mask.astype(np.uint8) * 255
    drawn = prepare(recipe, Pixels(view, 8, window=None, inverted=False, spacing_mm=None)).array
    found = place.to_input(mask)
    shrunk = place.geometry.scale_x <= 1 and place.geometry.scale_y <= 1
    # Shrinking averages areas as we do; enlarging interpolates, which moves edges within a pixel.
    assert np.abs(found - drawn / 255).max() < (0.005 if shrunk else 0.76)
    area = mask.sum() * place.geometry.scale_x * place.geometry.scale_y
    assert found.sum() == pytest.approx(area, rel=1e-5)
    seen = height * width * place.geometry.scale_x * place.geometry.scale_y
    assert place.seen().sum() == pytest.approx(seen, rel=1e-5)


def test_heat_lies_on_the_original_where_it_lies_on_the_input() -> None:
    recipe = Recipe(size=60)
    place = _square(120, 240, recipe)  # 30 x 60 pixels in the middle of the square
    heat = np.zeros((6, 6), np.float32)
    heat[2, 4] = 1  # input 20-30 x 40-50, so original y 20-60, x 160-200
    shown = place.heat_on_original(heat, 120, 240)
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert (abs(row - 39.5), abs(column - 179.5)) == (0.5, 0.5)
    small = place.heat_on_original(heat, 30, 60)
    np.testing.assert_allclose(small, place.heat_on_input(heat)[15:45], atol=1e-6)
    found = find(heat, place, None)
    assert (found.peak_x, found.peak_y) == (180, 40)


def test_what_was_cropped_away_has_no_heat() -> None:
    screen = np.zeros((200, 300), np.uint8)
    screen[40:160, 60:240] = np.random.default_rng(0).integers(60, 200, (120, 180))
    recipe = Recipe(size=64, crop_sector=True, resize="stretch")
    place = _placed(screen, recipe)
    assert place.seen() == pytest.approx(np.ones((64, 64)))
    shown = place.heat_on_original(np.ones((4, 4), np.float32), 200, 300)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    assert abs(rows[0] - 40) < 6 and abs(rows[-1] - 159) < 6
    assert abs(columns[0] - 60) < 6 and abs(columns[-1] - 239) < 6
    # Half of what is seen: even heat has half of its energy there.
    left = np.zeros((200, 300), np.bool_)
    left[:, :150] = True
    found = find(np.ones((4, 4), np.float32), place, left)
    assert found.region_share == pytest.approx(0.5, abs=0.02)
    assert found.energy_inside == pytest.approx(found.region_share)
