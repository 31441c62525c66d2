"""Pictures: the image where opacity is 0, the colours where it is 1, the outline on the border."""

import cv2
import numpy as np

from workers.explain.overlay import LONGEST_PX, captioned, draw, encode, make_canvas

GREY = np.random.default_rng(0).integers(0, 256, (80, 120), dtype=np.uint8)
HEAT = np.linspace(0, 1, 80 * 120, dtype=np.float32).reshape(80, 120)


def test_opacity_goes_from_the_image_to_the_colours() -> None:
    canvas = make_canvas(GREY, None)
    assert np.array_equal(draw(canvas, HEAT, 0.0, None), cv2.cvtColor(GREY, cv2.COLOR_GRAY2BGR))
    full = draw(canvas, HEAT, 1.0, None)
    cold, hot = full[0, 0].astype(int), full[-1, -1].astype(int)
    assert hot[2] > hot[0] + 60  # red beats blue where it is hot: colours are BGR
    assert cold[0] > cold[2]
    half = draw(canvas, HEAT, 0.5, None).astype(int)
    assert np.abs(half - (full.astype(int) + GREY[..., None]) / 2).max() <= 1


def test_the_outline_is_the_regions_border_and_the_peak_a_ring() -> None:
    region = np.zeros((80, 120), np.bool_)
    region[20:40, 30:70] = True
    picture = draw(make_canvas(GREY, region), HEAT, 0.3, None)
    green = (picture == (0, 255, 0)).all(axis=2)
    expected = region & ~cv2.erode(region.astype(np.uint8), np.ones((3, 3))).astype(np.bool_)
    assert np.array_equal(green, expected)
    ringed = draw(make_canvas(GREY, None), HEAT, 0.3, (60.0, 40.0))
    changed = (ringed != draw(make_canvas(GREY, None), HEAT, 0.3, None)).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == (80, 120)
    assert not changed[40, 60]


def test_large_originals_are_shrunk_and_small_ones_are_not() -> None:
    large = np.zeros((3000, 1500), np.uint8)
    region = np.zeros((3000, 1500), np.bool_)
    region[600:900, 300:600] = True
    canvas = make_canvas(large, region)
    assert canvas.grey_HW.shape == (LONGEST_PX, LONGEST_PX // 2)
    (border,) = canvas.outline
    assert np.abs(cv2.boundingRect(border) - np.array([102, 205, 103, 103])).max() <= 1
    assert make_canvas(GREY, None).grey_HW.shape == (80, 120)


def test_captions_lie_below_and_change_no_pixel() -> None:
    picture = draw(make_canvas(GREY, None), HEAT, 0.3, None)
    shown = captioned(picture, ("gradcam: krank 0.93", "Übel 12 % inside"))
    assert np.array_equal(shown[:80], picture)
    assert shown[80:].any() and shown.shape[0] > 80 + 30
    # Words that do not fit go below, so that nothing touches the right edge.
    long = captioned(picture, ("gradcam: hemangioma 0.93, labelled hepatocellular",))
    assert long.shape[0] > captioned(picture, ("gradcam:",)).shape[0] + 30
    assert not long[80:, -3:].any()
    back = cv2.imdecode(np.frombuffer(encode(shown), np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    smooth = captioned(draw(make_canvas(GREY // 255 + 90, None), HEAT, 0.3, None), ("x",))
    again = cv2.imdecode(np.frombuffer(encode(smooth), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(again.astype(int) - smooth).max() < 40
    assert np.abs(again.astype(int) - smooth).mean() < 2
