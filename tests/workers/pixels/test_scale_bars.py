from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from workers.phantoms.frame import Case, Site
from workers.phantoms.ultrasound import draw_ultrasound
from workers.pixels.scale_bars import detect_scale_bars, remove_scale_bars
from workers.pixels.sector import find_sector

BLUE, YELLOW = (50, 100, 235), (235, 215, 50)
Screen = np.ndarray


def fan(height: int = 360, width: int = 480) -> Screen:
    """A textured sector on black."""
    random = np.random.default_rng(5)
    grey = cv2.GaussianBlur(random.integers(0, 256, (height, width)).astype(np.uint8), (3, 3), 0)
    mask = np.zeros((height, width), np.uint8)
    centre = (width // 2, -height // 8)
    cv2.ellipse(mask, centre, (height, height), 90, -35, 35, 1, -1)
    cv2.circle(mask, centre, height // 4, 0, -1)
    return np.repeat(np.where(mask > 0, np.maximum(grey, 30), 0)[..., None], 3, axis=2).astype(
        np.uint8
    )


def draw_line(screen: Screen, colour: tuple[int, int, int]) -> None:
    screen[80:330, 12:14] = colour


def draw_ruler(screen: Screen, colour: tuple[int, int, int]) -> None:
    draw_line(screen, colour)
    for row in range(80, 330, 25):
        screen[row : row + 2, 12:22] = colour


def draw_ticks(screen: Screen, colour: tuple[int, int, int]) -> None:
    for row in range(80, 331, 25):
        screen[row : row + 2, 462:472] = colour


def draw_bottom_ruler(screen: Screen, colour: tuple[int, int, int]) -> None:
    screen[350:352, 100:400] = colour
    for column in range(100, 401, 30):
        screen[344:352, column : column + 2] = colour


def draw_text(screen: Screen, colour: tuple[int, int, int]) -> None:
    cv2.putText(screen, "LIVER RT LOBE 12:30", (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.7, colour, 2)
    for line, word in enumerate(["D 14cm", "GN 60", "DR 70", "MI 1.1", "TIS 0.4", "FR 31"]):
        cv2.putText(screen, word, (4, 120 + 22 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1)


def draw_doppler(screen: Screen, colour: tuple[int, int, int]) -> None:
    cv2.ellipse(screen, (230, 200), (12, 60), 10, 0, 360, colour, -1)
    cv2.rectangle(screen, (190, 120), (290, 280), colour, 1)


def draw_caliper(screen: Screen, colour: tuple[int, int, int]) -> None:
    for step in range(40):
        cv2.circle(screen, (160 + 4 * step, 200 + step // 8), 1, colour, -1)


def draw_badge(screen: Screen, colour: tuple[int, int, int]) -> None:
    screen[20:60, 10:60] = colour


def draw_legend(screen: Screen, colour: tuple[int, int, int]) -> None:
    """The filled strip that says what the colours of Doppler flow mean."""
    shades = np.linspace(0.5, 1.0, 90)[:, None, None]
    screen[60:150, 455:468] = (np.array(colour) * shades).astype(np.uint8)


def as_jpeg(screen: Screen, quality: int) -> Screen:
    done, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(screen[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.mark.parametrize("quality", [None, 92])
@pytest.mark.parametrize(("name", "colour"), [("blue", BLUE), ("yellow", YELLOW)])
@pytest.mark.parametrize("draw", [draw_line, draw_ruler, draw_ticks, draw_bottom_ruler])
def test_bars_are_found_and_removed(
    draw: Callable[[Screen, tuple[int, int, int]], None],
    name: str,
    colour: tuple[int, int, int],
    quality: int | None,
) -> None:
    clean = fan()
    screen = clean.copy()
    draw(screen, colour)
    drawn = (screen != clean).any(axis=2)
    if quality is not None:
        clean, screen = as_jpeg(clean, quality), as_jpeg(screen, quality)
    found = detect_scale_bars(screen)
    assert [bar.colour for bar in found.bars] == [name]
    rows, columns = np.nonzero(drawn)
    x, y, width, height = found.bars[0].box
    expected = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert np.abs(np.subtract((x, y, width, height), expected)).max() <= (4 if quality else 0)

    cleared = remove_scale_bars(screen, found)
    changed = (cleared != screen).any(axis=2)
    assert not changed[~found.mask].any()
    assert found.share == found.mask.mean()
    sector = find_sector(screen)
    assert sector is not None
    assert not changed[sector.mask].any(), "nothing in the sector changes"
    assert cleared[drawn].max() <= (30 if quality else 0)
    if quality is None:
        assert np.array_equal(cleared, clean)


@pytest.mark.parametrize("colour", [BLUE, YELLOW], ids=["blue", "yellow"])
@pytest.mark.parametrize("draw", [draw_text, draw_doppler, draw_caliper, draw_badge, draw_legend])
def test_other_coloured_things_are_left_alone(
    draw: Callable[[Screen, tuple[int, int, int]], None], colour: tuple[int, int, int]
) -> None:
    screen = fan()
    draw(screen, colour)
    found = detect_scale_bars(screen)
    assert found.bars == ()
    assert found.share == 0
    assert remove_scale_bars(screen, found) is screen


def test_a_bar_beside_doppler_and_text_is_found_alone() -> None:
    screen = fan()
    draw_doppler(screen, YELLOW)
    cv2.putText(screen, "LIVER", (380, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.7, YELLOW, 2)
    before = screen.copy()
    draw_ruler(screen, YELLOW)
    cleared = remove_scale_bars(screen, detect_scale_bars(screen))
    assert np.array_equal(cleared, before)


def test_red_bars_and_grey_wedges_are_no_scale_bars() -> None:
    screen = fan()
    screen[80:330, 12:14] = (235, 40, 40)
    screen[80:330, 460:466] = np.linspace(255, 0, 250).astype(np.uint8)[:, None, None]
    assert detect_scale_bars(screen).bars == ()


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 3), (1, 1, 3)])
def test_grey_and_empty_images_have_none(shape: tuple[int, ...]) -> None:
    assert detect_scale_bars(np.full(shape, 128, np.uint8)).bars == ()


@pytest.mark.parametrize("size", [192, 256, 512])
@pytest.mark.parametrize("quality", [None, 90])
def test_phantoms_bars_are_found_as_drawn(size: int, quality: int | None) -> None:
    for seed in range(12):
        case = Case("cyst", "liver", Site("a"), size, scale_bar=seed % 3 > 0)
        drawn = draw_ultrasound(case, np.random.default_rng(seed), np.random.default_rng(90 + seed))
        view = drawn.pixels if quality is None else as_jpeg(drawn.pixels, quality)
        found = detect_scale_bars(view)
        if drawn.scale_bar is None:
            assert found.bars == ()
            continue
        assert [bar.colour for bar in found.bars] == [drawn.scale_bar.colour]
        x, y, _, height = found.bars[0].box
        box = drawn.scale_bar.box
        assert abs(x - box.x) <= 2
        assert abs(y - box.y) <= 4
        assert abs(height - box.height) <= 8
        sector = find_sector(view)
        assert sector is not None
        changed = (remove_scale_bars(view, found) != view).any(axis=2)
        assert changed.any()
        assert not changed[sector.mask].any()


def test_real_ultrasound_has_no_bars_at_its_margin(shared_data: Path) -> None:
    # Grey images, and eight in colour: Doppler flow, calipers, coloured texts, regions of interest.
    colour = 0
    for file in sorted(shared_data.glob("us-busi/*/images/*.png")):
        with Image.open(file) as image:
            if image.mode != "RGB":
                continue
            view = np.asarray(image)
        colour += 1
        assert detect_scale_bars(view).bars == (), file.name
    assert colour == 8


def test_the_sector_is_the_fan_without_texts() -> None:
    screen = fan()
    truth = screen[..., 0] > 0
    draw_text(screen, (220, 220, 220))
    sector = find_sector(screen)
    assert sector is not None
    assert sector.mask[truth].mean() > 0.985
    x, y, width, height = sector.box
    rows, columns = np.nonzero(truth)
    expected = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert np.abs(np.subtract((x, y, width, height), expected)).max() <= 8
