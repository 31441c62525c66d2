"""Figures of heat maps: hits, energy, chance, padding, and what counts as nothing."""

import numpy as np
import pyarrow as pa
import pytest

from schemas.tables import rows_of
from workers.explain.mapping import Placement
from workers.explain.pointing import find
from workers.explain.summary import KNOWN, STAGED, load_finish, summarise
from workers.pixels.recipe import Geometry

WHOLE = Placement(Geometry(0.5, 0.5, 0, 0), 64, 128, 128)
"""An image of 128 x 128 in an input of 64 x 64."""
LOW = Placement(Geometry(0.5, 0.5, 0, 16), 64, 64, 128)
"""An image of 128 x 64 in the middle of it, with 16 pixels of padding above and below."""


def _box(height: int, width: int, *, y: slice, x: slice) -> np.ndarray:
    region = np.zeros((height, width), np.bool_)
    region[y, x] = True
    return region


def test_even_heat_scores_by_chance() -> None:
    region = _box(128, 128, y=slice(10, 50), x=slice(33, 80))
    found = find(np.full((4, 4), 0.3, np.float32), WHOLE, region)
    assert found.region_share == pytest.approx(40 * 47 / 128**2)
    assert found.energy_inside == pytest.approx(found.region_share)
    assert found.energy_padding == 0


def test_energy_inside_is_the_integral_over_the_region() -> None:
    heat = np.random.default_rng(3).random((4, 4), dtype=np.float32)
    region = _box(128, 128, y=slice(12, 70), x=slice(20, 100))
    found = find(heat, WHOLE, region)
    fine = WHOLE.heat_on_original(heat, 128, 128).astype(np.float64)
    assert found.energy_inside == pytest.approx(fine[region].sum() / fine.sum(), abs=0.002)


@pytest.mark.parametrize(("row", "column", "hit"), [(1, 2, True), (1, 3, False), (3, 2, False)])
def test_the_peak_is_the_middle_of_the_hottest_cell(row: int, column: int, hit: bool) -> None:
    heat = np.full((4, 4), 0.1, np.float32)
    heat[row, column] = 1
    region = _box(128, 128, y=slice(32, 64), x=slice(64, 96))  # cell (1, 2) and no other
    found = find(heat, WHOLE, region)
    assert (found.peak_x, found.peak_y) == (column * 32 + 16, row * 32 + 16)
    assert found.pointing_hit is hit


def test_heat_on_padding_counts_apart_and_is_no_peak() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0], heat[1, 1] = 2, 1
    found = find(heat, LOW, None)
    assert (found.peak_x, found.peak_y) == (48, 16)
    on_input = LOW.heat_on_input(heat)
    expected = 1 - on_input[16:48].sum() / on_input.sum()
    assert found.energy_padding == pytest.approx(expected, rel=1e-5)
    assert (found.energy_inside, found.pointing_hit, found.region_share) == (None, None, None)


def test_without_heat_or_region_there_is_nothing_to_tell() -> None:
    cold = find(np.zeros((4, 4), np.float32), WHOLE, _box(128, 128, y=slice(0, 64), x=slice(0, 64)))
    assert (cold.peak_x, cold.energy_inside, cold.pointing_hit, cold.energy_padding) == (None,) * 4
    assert cold.region_share == pytest.approx(0.25)
    empty = find(np.ones((4, 4), np.float32), WHOLE, np.zeros((128, 128), np.bool_))
    assert (empty.energy_inside, empty.pointing_hit, empty.region_share) == (None, None, None)


def _rows(*figures: tuple[float | None, bool | None, float | None]) -> pa.Table:
    names = ("energy_inside", "pointing_hit", "region_share")
    return rows_of("explanations", [dict(zip(names, one, strict=True)) for one in figures])


def test_means_are_over_images_that_have_both() -> None:
    rows = _rows((0.5, True, 0.1), (0.1, False, 0.3), (None, None, 0.9), (None, None, None))
    assert summarise(rows) == {
        "images with a region": 2,
        "mean energy inside": 0.3,
        "chance level": 0.2,
        "pointing game hit rate": 0.5,
        "pointing game images": 2,
    }
    assert summarise(rows.slice(3)) == {"images with a region": 0}


def test_the_finishing_step_counts_what_was_known_before() -> None:
    result = load_finish({})({STAGED: _rows((0.2, False, 0.1)), KNOWN: _rows((0.6, True, 0.1))})
    assert result.facts["mean energy inside"] == 0.4
    assert (result.done, result.tables) == (0, {})
