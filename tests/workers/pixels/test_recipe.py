import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_rescale, apply_windowing

from schemas.errors import RunError
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import Geometry, Recipe, apply, prepare, to_uint8
from workers.pixels.steps import DECODER, NVJPEG_DECODER, require_cpu

RECIPES = st.builds(
    Recipe,
    size=st.integers(16, 300),
    channels=st.sampled_from([1, 3]),
    resize=st.sampled_from(["letterbox", "stretch"]),
)
SIDES = st.integers(1, 600)


def frame(array: np.ndarray, **changes: object) -> Pixels:
    values = {"bits": 8, "window": None, "inverted": False, "spacing_mm": None} | changes
    return Pixels(array=array, **values)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_a_recipe_survives_its_dictionary() -> None:
    recipe = Recipe(size=96, channels=3, resize="stretch", crop_sector=True, window=(40, 400))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(recipe.to_dict()).hash == recipe.hash


def test_fields_left_out_take_their_defaults() -> None:
    assert Recipe.from_dict({"size": 64}) == Recipe(size=64)


def test_every_field_enters_the_hash() -> None:
    changed = [
        Recipe(size=225),
        Recipe(channels=3),
        Recipe(resize="stretch"),
        Recipe(remove_scale_bar=True),
        Recipe(crop_sector=True),
        Recipe(window=(40, 400)),
        Recipe(decoder=NVJPEG_DECODER),
    ]
    hashes = {Recipe().hash, *(recipe.hash for recipe in changed)}
    assert len(hashes) == 8
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in hashes)
    assert Recipe().to_dict()["decoder"] == DECODER


def test_hashes_stay_as_they_are_in_lakes_and_bundles() -> None:
    assert Recipe().hash == "3d7448b64d30439c"
    assert Recipe(size=96, channels=3).hash == "67c5922f6ce03eb2"
    assert Recipe(window=(40, 400)).hash == "20dd00f56dc1ed0f"


def test_a_decoder_named_as_in_a_job_file_is_the_one_of_this_version() -> None:
    assert Recipe.from_dict({"decoder": "cpu"}) == Recipe()
    assert Recipe.from_dict({"decoder": "nvjpeg"}) == Recipe(decoder="nvjpeg-1")


def test_a_cpu_never_makes_the_pixels_of_a_gpu() -> None:
    require_cpu(Recipe())
    recipe = Recipe(decoder=NVJPEG_DECODER)
    with pytest.raises(RunError, match="got decoder nvjpeg-1") as caught:
        prepare(recipe, frame(noise(20, 20)))
    assert "kind prepare" in str(caught.value)
    assert "preprocess.decoder: cpu" in str(caught.value)


def test_whole_and_fractional_windows_are_the_same_recipe() -> None:
    assert Recipe(window=(40, 400)).hash == Recipe.from_dict({"window": [40.0, 400.0]}).hash


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size must be at least 1: got 0"),
        ({"channels": 2}, "channels must be 1 or 3: got 2"),
        ({"resize": "crop"}, "resize must be letterbox or stretch: got crop"),
        ({"window": [0, 0]}, "window's width must be positive: got 0"),
        ({"decoder": "gpu-9"}, "this version decodes as cpu-1 or nvjpeg-1: got gpu-9"),
        ({"decoder": "nvjpeg", "remove_scale_bar": True}, "can't remove scale bars .* decoder cpu"),
        ({"decoder": "nvjpeg", "crop_sector": True}, "or crop to the sector: use decoder cpu"),
        ({"sizes": 9}, "unknown field sizes; known: size, channels"),
    ],
)
def test_impossible_recipes_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(values)


def test_eight_bits_pass_through() -> None:
    view = noise(20, 30, 3)
    assert to_uint8(frame(view)) is view


def test_monochrome1_is_inverted_after_windowing() -> None:
    array = np.array([[0, 1000, 4095]], np.uint16)
    plain = to_uint8(frame(array, bits=12, window=(1000.0, 500.0)))
    inverted = to_uint8(frame(array, bits=12, window=(1000.0, 500.0), inverted=True))
    assert plain.tolist() == [[0, 128, 255]]
    assert np.array_equal(inverted, 255 - plain)


@pytest.mark.parametrize("bits", [1, 8, 10, 12, 16])
def test_samples_are_scaled_by_their_significant_bits(bits: int) -> None:
    top = 2**bits - 1
    array = np.array([[0, top // 2, top]], np.uint16)
    expected = [[0, round(top // 2 * 255 / top), 255]]
    assert to_uint8(frame(array, bits=bits)).tolist() == expected


def test_signed_and_real_samples_without_a_window_are_stretched() -> None:
    assert to_uint8(frame(np.array([[-1000, 0, 1000]], np.int16))).tolist() == [[0, 128, 255]]
    real = np.array([[0.0, 1.0, np.nan, np.inf]], np.float32)
    assert to_uint8(frame(real)).tolist() == [[0, 255, 0, 255]]
    assert to_uint8(frame(np.full((2, 2), 7.5, np.float32))).tolist() == [[0, 0], [0, 0]]


def test_the_recipes_window_wins_over_the_files_and_spares_colour() -> None:
    array = np.array([[-200, 40, 300]], np.int16)
    assert to_uint8(frame(array, window=(0.0, 10.0)), (40, 400)).tolist() == [[0, 128, 255]]
    colour = noise(4, 4, 3)
    assert np.array_equal(to_uint8(frame(colour), (40, 400)), colour)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_windows_as_pydicom_does(name: str) -> None:
    dataset = pydicom.dcmread(get_testdata_file(name))
    values = apply_rescale(dataset.pixel_array, dataset)
    dataset.WindowCenter, dataset.WindowWidth = 300, 700
    for element in ("RescaleSlope", "RescaleIntercept"):
        if element in dataset:
            delattr(dataset, element)
    whole = values.astype(np.int16)
    dataset.PixelRepresentation, dataset.BitsStored = 1, 16
    reference = apply_windowing(whole, dataset).astype(np.float64)
    expected = (reference - (-32768)) / 65535 * 255
    found = to_uint8(frame(whole, bits=16, window=(300.0, 700.0)))
    assert np.abs(found - expected).max() <= 0.5 + 1e-6
    as_real = to_uint8(frame(values.astype(np.float32), bits=16, window=(300.0, 700.0)))
    assert np.array_equal(found, as_real)


@given(RECIPES, SIDES, SIDES, st.booleans())
def test_prepared_images_have_the_recipes_shape(
    recipe: Recipe, height: int, width: int, colour: bool
) -> None:
    view = noise(height, width, 3) if colour else noise(height, width)
    array, geometry = apply(recipe, frame(view))
    assert array.dtype == np.uint8
    assert array.shape == (recipe.size, recipe.size, 3)[: 2 if recipe.channels == 1 else 3]
    again, _ = apply(recipe, frame(view.copy()))
    assert np.array_equal(array, again)
    whole = geometry.to_prepared(np.array([[0.0, 0.0, width, height]]))[0]
    assert whole.min() >= 0
    assert (whole[:2] + whole[2:]).max() <= recipe.size + 1e-9


@given(RECIPES, SIDES, SIDES, st.data())
def test_boxes_come_back_to_where_they_were(
    recipe: Recipe, height: int, width: int, data: st.DataObject
) -> None:
    _, geometry = apply(recipe, frame(noise(height, width)))
    x = data.draw(st.floats(0, width))
    y = data.draw(st.floats(0, height))
    box = np.array([[x, y, width - x, height - y]])
    back = geometry.to_original(geometry.to_prepared(box))
    assert np.abs(back - box).max() < 1e-6
    # On the way to a model, boxes are rounded to prepared pixels: half of one comes back.
    rounded = geometry.to_original(np.round(geometry.to_prepared(box)))
    half_pixel = max(0.5 / geometry.scale_x, 0.5 / geometry.scale_y)
    assert np.abs(rounded[:, :2] - box[:, :2]).max() <= half_pixel + 1e-6


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (50, 70), (300, 40)])
def test_geometry_says_where_pixels_went(resize: str, height: int, width: int) -> None:
    view = np.zeros((height, width), np.uint8)
    top, left, tall, wide = height // 5, width // 4, height // 3, width // 2
    view[top : top + tall, left : left + wide] = 255
    array, geometry = apply(Recipe(size=224, resize=resize), frame(view))
    x, y, w, h = geometry.to_prepared(np.array([[left, top, wide, tall]], float))[0]
    rows, columns = np.nonzero(array >= 128)
    assert abs(columns.min() - x) <= 0.51
    assert abs(columns.max() + 1 - (x + w)) <= 0.51
    assert abs(rows.min() - y) <= 0.51
    assert abs(rows.max() + 1 - (y + h)) <= 0.51


def test_letterbox_keeps_the_aspect_ratio_and_pads_with_black() -> None:
    array, geometry = apply(Recipe(size=100), frame(np.full((50, 200), 200, np.uint8)))
    assert geometry == Geometry(0.5, 0.5, 0, 37)
    assert (array[37:62] == 200).all()
    assert not array[:37].any()
    assert not array[62:].any()


def test_shrinking_averages_and_grey_coded_colour_stays_grey() -> None:
    view = noise(200, 200)
    array, _ = apply(Recipe(size=50), frame(view))
    blocks = view.reshape(50, 4, 50, 4).mean(axis=(1, 3))
    assert np.abs(array - blocks).max() <= 0.51
    colour, _ = apply(Recipe(size=50), frame(np.repeat(view[..., None], 3, axis=2)))
    assert np.array_equal(colour, array)
    three, _ = apply(Recipe(size=50, channels=3), frame(view))
    assert np.array_equal(three, np.repeat(array[..., None], 3, axis=2))


def sector_screen() -> np.ndarray:
    """A bright fan on black with a yellow ruler on the left and a text."""
    screen = np.zeros((300, 400, 3), np.uint8)
    fan = np.array([[200, 20], [320, 260], [90, 260]])
    cv2.fillPoly(screen, [fan], (1, 1, 1))
    inside = screen[..., 0] > 0
    screen[inside] = np.repeat(noise(300, 400)[..., None] // 2 + 60, 3, axis=2)[inside]
    screen[60:260, 20:22] = (230, 210, 40)
    for tick in range(60, 260, 20):
        screen[tick : tick + 2, 20:30] = (230, 210, 40)
    return screen


def test_steps_remove_the_bar_and_crop_to_the_sector() -> None:
    screen = sector_screen()
    plain = prepare(Recipe(size=300, channels=3), frame(screen))
    cleared = prepare(Recipe(size=300, channels=3, remove_scale_bar=True), frame(screen))
    assert plain.bar_share == 0
    bar = 200 * 2 + 10 * 2 * 8
    assert cleared.bar_share == pytest.approx(bar / screen[..., 0].size, rel=0.01)
    changed = np.nonzero((plain.array != cleared.array).any(axis=2))
    assert changed[1].max() < 300 * 32 / 400
    assert np.ptp(cleared.array, axis=2).max() == 0

    cropped = prepare(Recipe(size=300, crop_sector=True), frame(screen))
    fan = cropped.geometry.to_original(np.array([[0.0, 0.0, 300, 300]]))[0]
    x, y, w, h = cropped.geometry.to_prepared(np.array([[90.0, 20, 230, 240]]))[0]
    assert fan[2] == pytest.approx(240, abs=8)
    assert abs(x) < 5
    assert abs(y - 0) < 12
    assert w == pytest.approx(300 * 230 / 240, abs=12)
    assert h == pytest.approx(300, abs=12)


def test_crop_leaves_an_image_without_a_sector_alone() -> None:
    black = frame(np.zeros((60, 80), np.uint8))
    assert apply(Recipe(size=80, crop_sector=True), black)[1] == Geometry(1, 1, 0, 10)


def test_geometry_survives_its_dictionary() -> None:
    geometry = Geometry(0.5, 0.25, 3.0, -4.0)
    assert Geometry.from_dict(geometry.to_dict()) == geometry
