"""Distributions against NumPy and pandas, and what looks wrong in a record."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from workers.figures.profile import draw_profile
from workers.profiling import find_suspects, load, measure

LIMITS = {"adult_labels": [], "max_age": 110, "max_box_share": 0.9, "min_box_share": 0.0001}
PARAMS = LIMITS | {"profile": "p", "dataset": "d"}


def _image(number: int, **changes: Any) -> dict[str, Any]:
    image = {
        "image_id": f"i{number}",
        "label": "cyst",
        "sex": "F",
        "age": 50.0,
        "width": 200,
        "height": 100,
        "patient_id": f"p{number}",
        "boxes": [2000.0],
    }
    return image | changes


def _images() -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [
        _image(
            number,
            label=("cyst", "hcc", None)[number % 3],
            sex=("F", "M", None)[int(rng.integers(3))],
            age=float(np.float32(rng.uniform(20, 90))) if number % 5 else None,
            width=int(rng.integers(190, 1000)),
            boxes=rng.uniform(100, 15_000, number % 3).tolist(),
        )
        for number in range(200)
    ]


def _frame(name: str, images: list[dict[str, Any]]) -> pd.DataFrame:
    result = load(PARAMS)(pa.Table.from_pylist(images), [])
    frame = result.tables["profiles"].to_pandas()
    return frame[frame["distribution"] == name]


def test_counts_and_figures_are_those_of_pandas() -> None:
    images = _images()
    known = pd.DataFrame(images)
    ages = known.dropna(subset=["age"])
    found = _frame("age", images)
    for label in ("cyst", "hcc"):
        of_label = ages[ages["label"] == label]["age"]
        rows = found[found["label"] == label].set_index("statistic")["value"]
        expected = of_label.describe()
        for ours, theirs in {"min": "min", "q1": "25%", "median": "50%", "max": "max"}.items():
            assert rows[ours] == pytest.approx(expected[theirs])
        assert rows["std"] == pytest.approx(of_label.std(ddof=0))
        bins = found[(found["label"] == label) & (found["statistic"] == "count")]
        edges = [*bins["low"], bins["high"].iloc[-1]]
        assert bins["value"].tolist() == np.histogram(of_label, edges)[0].tolist()
        assert (bins["n"] == len(of_label)).all()
    sexes = _frame("images", images)
    counted = known.fillna({"sex": "unknown"}).groupby(["label", "sex"], dropna=False).size()
    assert sexes.groupby(["label", "sex"], dropna=False)["value"].sum().astype(int).equals(counted)
    shares = _frame("box_share", images)
    median = shares[(shares["label"] == "hcc") & (shares["statistic"] == "median")]["value"].item()
    of_label = known[known["label"] == "hcc"]
    expected_shares = [
        area / (row.width * row.height) for row in of_label.itertuples() for area in row.boxes
    ]
    assert median == pytest.approx(np.median(expected_shares))


def test_bins_hold_their_lower_edge() -> None:
    images = [_image(n, age=float(age)) for n, age in enumerate((0, 9.9, 10, 30))]
    images[0]["boxes"] = [0.15 * 20_000]
    bins = _frame("age", images).query("statistic == 'count'")
    assert bins[["low", "value"]].to_numpy().tolist() == [[0, 2], [10, 1], [20, 0], [30, 1]]
    low = _frame("box_share", images[:1]).query("statistic == 'count'")["low"]
    assert low.tolist() == [0.15]


def _suspects(images: list[dict[str, Any]], **limits: Any) -> list[tuple[str, str]]:
    found = find_suspects(images, measure(images), LIMITS | limits)
    return [(row["image_id"], row["reason"]) for row in found]


def test_an_age_of_zero_is_odd_in_a_disease_of_adults_only() -> None:
    images = [_image(n, age=60.0) for n in range(5)] + [_image(5, age=0.0)]
    images += [_image(n, label="croup", age=0.5) for n in range(6, 9)]
    assert _suspects(images) == [("i5", "age_zero")]
    assert [name for name, _ in _suspects(images, adult_labels=["croup"])] == ["i6", "i7", "i8"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"age": 111.0}, ["age_high"]),
        ({"age": -1.0}, ["age_below_zero"]),
        ({"sex": None}, ["sex_missing"]),
        ({"sex": "M", "patient_id": "p0"}, ["sex_contradicts"]),
        ({"boxes": [18_001.0]}, ["box_large"]),
        ({"boxes": [1.9, 18_000.0]}, ["box_small"]),
        ({"age": 110.0, "boxes": [2.0, 18_000.0]}, []),
        ({"age": None, "width": None}, []),
    ],
)
def test_what_looks_wrong_is_listed(changes: Any, expected: list[str]) -> None:
    images = [_image(0), _image(1) | changes]
    found = [reason for name, reason in _suspects(images) if name == "i1"]
    assert found == expected


def test_a_data_set_that_knows_no_sex_has_none_missing() -> None:
    assert _suspects([_image(n, sex=None) for n in range(3)]) == []


def test_pictures_and_csv_files() -> None:
    images = [*_images(), _image(900, age=0.0)]
    result = load(PARAMS, draw_profile)(pa.Table.from_pylist(images), [])
    names = {"images", "age", "size", "box_share"}
    pictures = {name: data for name, data in result.files.items() if name.endswith(".png")}
    assert set(pictures) == {f"{name}.png" for name in names}
    assert all(data.startswith(b"\x89PNG") and len(data) > 5000 for data in pictures.values())
    assert load(PARAMS, draw_profile)(pa.Table.from_pylist(images), []).files == result.files
    read = pd.read_csv(io.BytesIO(result.files["age.csv"]))
    assert len(read) == len(_frame("age", images))
    suspects = pd.read_csv(io.BytesIO(result.files["suspects.csv"]))
    assert result.facts["suspicious: age_zero"] == (suspects["reason"] == "age_zero").sum() == 1


def test_a_data_set_of_which_little_is_known_has_few_pictures() -> None:
    images = [_image(n, label=None, sex=None, age=None, boxes=[]) for n in range(2)]
    result = load(PARAMS, draw_profile)(pa.Table.from_pylist(images), [])
    assert {name for name in result.files if name.endswith(".png")} == {"images.png", "size.png"}
