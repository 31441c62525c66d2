"""The geometry is true of the pixels: what is drawn in the original is found where it says."""

import json
from dataclasses import dataclass

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from workers.pixels.pixels import Pixels
from workers.pixels.recipe import Geometry, prepare
from workers.pixels.steps import Recipe

RECIPES = st.builds(
    Recipe,
    size=st.integers(16, 320),
    channels=st.sampled_from([1, 3]),
    resize=st.sampled_from(["letterbox", "stretch"]),
    crop_sector=st.booleans(),
)
TISSUE, BRIGHT = 90, 255


@dataclass(frozen=True)
class Scene:
    """A lit field on a black screen, and a bright rectangle within the field."""

    view: np.ndarray
    box: tuple[int, int, int, int]
    """x, y, width, height of the rectangle in pixels."""


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    height, width = draw(st.integers(40, 500)), draw(st.integers(40, 500))
    # A field without a margin is an image without a screen around it.
    edges = [draw(st.integers(0, side // 4)) for side in (height, height, width, width)]
    top, bottom, left, right = edges[0], height - edges[1], edges[2], width - edges[3]
    view = np.zeros((height, width), np.uint8)
    view[top:bottom, left:right] = TISSUE
    # Cropping takes up to a few pixels off the field's border.
    x, wide = draw(_interval(left + 6, right - 6))
    y, tall = draw(_interval(top + 6, bottom - 6))
    view[y : y + tall, x : x + wide] = BRIGHT
    return Scene(view, (x, y, wide, tall))


def _interval(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    """Start and length of at least two pixels."""
    return st.integers(2, high - low).flatmap(
        lambda length: st.tuples(st.integers(low, high - length), st.just(length))
    )


def _as_stored(geometry: Geometry) -> Geometry:
    return Geometry.from_dict(json.loads(json.dumps(geometry.to_dict())))


def _prepare(recipe: Recipe, view: np.ndarray) -> tuple[np.ndarray, Geometry]:
    prepared = prepare(recipe, Pixels(view, 8, window=None, inverted=False, spacing_mm=None))
    grey = prepared.array if prepared.array.ndim == 2 else prepared.array[..., 1]
    return grey, _as_stored(prepared.geometry)


def _extent(cover: np.ndarray) -> tuple[float, float]:
    """Start and length, in fractions of a pixel, of what a line of cover shares (0-1) shows.

    Averaging and linear interpolation keep the sum and the centre of gravity of what they resize.
    """
    length = float(cover.sum())
    centre = float((cover * (np.arange(cover.size) + 0.5)).sum()) / length
    return centre - length / 2, length


@given(RECIPES, scenes())
def test_a_bright_rectangle_is_found_where_the_geometry_says(recipe: Recipe, scene: Scene) -> None:
    grey, geometry = _prepare(recipe, scene.view)
    x, y, w, h = geometry.to_prepared(np.array([scene.box], float))[0]
    cover = np.clip((grey.astype(float) - TISSUE) / (BRIGHT - TISSUE), 0, 1)
    assume(w * h > 0.1)  # a smaller one drowns in the rounding of grey levels
    if w < 2 or h < 2:
        # No line of pixels is wholly covered, but the weight still lies at the centre.
        rows, columns = np.indices(cover.shape) + 0.5
        assert abs((columns * cover).sum() / cover.sum() - (x + w / 2)) <= 0.5
        assert abs((rows * cover).sum() / cover.sum() - (y + h / 2)) <= 0.5
        return
    found_x, found_w = _extent(cover[cover.sum(axis=1).argmax()])
    found_y, found_h = _extent(cover[:, cover.sum(axis=0).argmax()])
    assert abs(found_x - x) <= 0.5
    assert abs(found_y - y) <= 0.5
    assert abs(found_x + found_w - (x + w)) <= 0.5
    assert abs(found_y + found_h - (y + h)) <= 0.5


@given(RECIPES, scenes())
def test_boxes_of_a_model_come_back_to_the_original(recipe: Recipe, scene: Scene) -> None:
    _, geometry = _prepare(recipe, scene.view)
    box = np.array([scene.box], float)
    prepared = geometry.to_prepared(box)
    # The tables hold boxes as float32.
    back = geometry.to_original(prepared.astype(np.float32))
    assert np.abs(back - box).max() <= 0.5
    # A mask's border lies between whole pixels: half of a prepared one is lost, and no more.
    corners = np.concatenate([prepared[:, :2], prepared[:, :2] + prepared[:, 2:]])
    whole = np.concatenate([np.round(corners), np.zeros((2, 2))], axis=1)
    original = geometry.to_original(whole)[:, :2]
    expected = np.array([[scene.box[0], scene.box[1]], np.add(scene.box[:2], scene.box[2:])])
    half_pixel = np.array([0.5 / geometry.scale_x, 0.5 / geometry.scale_y])
    assert (np.abs(original - expected) <= half_pixel + 1e-6).all()


@given(scenes(), st.integers(16, 320))
def test_cropping_is_worth_its_name(scene: Scene, size: int) -> None:
    """A crop enlarges: the rectangle is never smaller than without, and the field stays in."""
    box = np.array([scene.box], float)
    _, uncropped = _prepare(Recipe(size=size), scene.view)
    whole = uncropped.to_prepared(box)[0]
    cropped = _prepare(Recipe(size=size, crop_sector=True), scene.view)[1].to_prepared(box)[0]
    # The shorter side of a letterbox is rounded to whole pixels, before and after; the field is at
    # least half of the view.
    sides = np.array(
        [scene.view.shape[1] * uncropped.scale_x, scene.view.shape[0] * uncropped.scale_y]
    )
    assert (cropped[2:] >= whole[2:] * (1 - 1.5 / sides)).all()
    assert (cropped[:2] >= -0.5).all()
    assert (cropped[:2] + cropped[2:] <= size + 0.5).all()
