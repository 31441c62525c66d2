import numpy as np
import pytest

from workers.phantoms.frame import Case, Frame, Site
from workers.phantoms.noise import fractal_field, generator, softened, speckle_db
from workers.phantoms.ultrasound import draw_ultrasound


def _frame(
    number: int, *, scale_bar: bool = False, label: str = "normal", gain: float = 0
) -> Frame:
    case = Case(label, "subcostal", Site("SITE-01", gain=gain), 256, scale_bar)
    return draw_ultrasound(case, generator(1, number), generator(2, number))


def _coloured(pixels: np.ndarray) -> np.ndarray:
    return np.ptp(pixels.astype(np.int16), axis=2) > 60


def test_scale_bar_is_exactly_where_the_truth_says() -> None:
    colours = set()
    for number in range(20):
        frame = _frame(number, scale_bar=True)
        bar = frame.scale_bar
        assert bar is not None
        rows, columns = np.nonzero(_coloured(frame.pixels))
        box = bar.box
        assert (rows.min(), rows.max() + 1) == (box.y, box.y + box.height)
        assert (columns.min(), columns.max() + 1) == (box.x, box.x + box.width)
        red, _, blue = frame.pixels[rows[0], columns[0]]
        assert bar.colour == ("blue" if blue > red else "yellow")
        colours.add(bar.colour)
    assert colours == {"blue", "yellow"}


def test_ticks_stand_a_centimetre_apart() -> None:
    frame = _frame(3, scale_bar=True)
    bar = frame.scale_bar
    assert bar is not None
    # Every fifth tick is long and reaches the last column; the line is two pixels wide at most.
    column = _coloured(frame.pixels)[:, bar.box.x + bar.box.width - 1]
    short = _coloured(frame.pixels)[:, bar.box.x + 3]
    starts = np.flatnonzero(np.diff(short.astype(int)) == 1)
    assert column.sum() < short.sum()
    assert np.diff(starts).mean() == pytest.approx(10 / frame.spacing_mm, abs=0.2)


def test_without_a_bar_nothing_is_coloured_and_nothing_else_changes() -> None:
    for number in range(5):
        plain, barred = _frame(number), _frame(number, scale_bar=True)
        assert plain.scale_bar is None
        assert not _coloured(plain.pixels).any()
        assert barred.scale_bar is not None
        box = barred.scale_bar.box
        changed = (plain.pixels != barred.pixels).any(axis=2)
        changed[box.y : box.y + box.height, box.x : box.x + box.width] = False
        assert not changed.any()


def test_the_sector_lies_on_black() -> None:
    frame = _frame(0)
    assert frame.pixels.shape == (192, 256, 3)
    assert frame.pixels[-1].max() == 0
    assert (frame.pixels[:, :, 0] > 0).mean() > 0.3
    # The middle of the image is liver: speckled, neither black nor white.
    middle = frame.pixels[70:120, 110:160, 0]
    assert 20 < middle.mean() < 220
    assert middle.std() > 5


def test_gain_of_a_site_brightens() -> None:
    dark = np.mean([_frame(number, gain=-1).pixels.mean() for number in range(6)])
    bright = np.mean([_frame(number, gain=1).pixels.mean() for number in range(6)])
    assert bright > dark + 8


def test_images_of_a_patient_show_the_same_lesions_from_other_places() -> None:
    case = Case("meta", "subcostal", Site("SITE-01"), 256)
    one = draw_ultrasound(case, generator(1, 5), generator(2, 5))
    other = draw_ultrasound(case, generator(1, 5), generator(2, 6))
    assert len(one.marks) == len(other.marks) >= 2
    assert [mark.box for mark in one.marks] != [mark.box for mark in other.marks]


def test_speckle_is_rayleigh_without_compounding() -> None:
    levels = speckle_db(generator(1), (400, 400), (0.9, 0.9), looks=0.0)
    amplitude = 10 ** (levels / 20)
    # Rayleigh: mean over standard deviation is sqrt(pi / (4 - pi)) = 1.913.
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.913, abs=0.06)
    smoother = speckle_db(generator(1), (400, 400), (0.9, 0.9), looks=0.7)
    assert smoother.std() < 0.8 * levels.std()


def test_speckle_is_correlated_over_its_cell() -> None:
    levels = speckle_db(generator(3), (300, 300), (0.6, 2.0), looks=0.0)
    levels -= levels.mean()
    lateral = (levels[:, 1:] * levels[:, :-1]).mean() / levels.var()
    axial = (levels[1:] * levels[:-1]).mean() / levels.var()
    assert lateral > 0.75
    assert axial < 0.6


def test_fields() -> None:
    field = fractal_field(generator(1), (120, 90), 3, 3)
    assert field.shape == (120, 90)
    assert field.std() == pytest.approx(1, abs=0.15)
    impulse = np.zeros((101, 101), np.float32)
    impulse[50, 50] = 1
    soft = softened(impulse, 5.0)
    spread = np.sqrt((soft.sum(axis=0) * (np.arange(101) - 50) ** 2).sum())
    assert soft.sum() == pytest.approx(1, abs=1e-4)
    assert spread == pytest.approx(5.0, rel=0.08)
