"""Profiles of a lake: which images, whose boxes, and when there is something new."""

from pathlib import Path
from typing import Any

import pytest

from cluster.inline_pool import InlinePool
from cluster.lake.store import LakeStore
from jobs import profile
from schemas.errors import SourceError
from schemas.protocols import Report
from schemas.specs.profile import ProfileSpec
from tests.jobs.seeding import DATASET, image, image_id, seed

COUNT = 8


def _row(number: int, **changes: Any) -> dict[str, Any]:
    facts = {"width": 100, "height": 50, "age": 50.0 + number, "sex": "FM"[number % 2]}
    return image(number, "meta", patient_id=f"p{number}", **facts | changes)


def _box(number: int, side: float, **changes: Any) -> dict[str, Any]:
    box = {"image_id": image_id(number), "source": "reader", "category": "meta", "made_from": "m"}
    return box | {"x": 0.0, "y": 0.0, "w": side, "h": side, "area": 1.0} | changes


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    lake = LakeStore.open(str(tmp_path / "lake"), create=True)
    quality = [{"image_id": image_id(n), "dataset": DATASET, "kept": n != 3} for n in range(COUNT)]
    seed(
        lake,
        {
            "images": [_row(n, **({"age": 0.0} if n == 3 else {})) for n in range(COUNT)],
            "quality": quality,
            "annotations": [_box(1, 10), _box(1, 0.5), _box(2, 20), _box(4, 49, iscrowd=True)],
        },
    )
    return lake


def _run(store: LakeStore, **changes: Any) -> Report:
    spec = ProfileSpec.model_validate({"dataset": DATASET, "pictures": False} | changes)
    return profile.run(spec, InlinePool(store.root, lambda told: None), store)


def _suspects(store: LakeStore) -> list[tuple[str, str, str]]:
    rows = store.query("SELECT profile, image_id, reason FROM current_suspects ORDER BY ALL")
    return [tuple(row.values()) for row in rows.to_pylist()]


def test_a_data_set_is_described_with_what_looks_wrong(store: LakeStore) -> None:
    report = _run(store)
    assert (report.status, report.counts.done) == ("published", COUNT)
    assert report.facts["boxes of"] == "reader"
    assert (report.facts["suspicious: age_zero"], report.facts["suspicious: box_small"]) == (1, 1)
    assert _suspects(store) == [
        ("profile", image_id(1), "box_small"),
        ("profile", image_id(3), "age_zero"),
    ]
    figures = store.query(
        "SELECT distribution, statistic, value, n FROM current_profiles "
        "WHERE statistic IN ('max', 'median') ORDER BY ALL"
    ).to_pylist()
    assert [tuple(row.values()) for row in figures] == [
        ("age", "max", 57, 8),
        ("age", "median", 53, 8),  # of 0, 50, 51, 52, 54, 55, 56, 57
        ("box_share", "max", 400 / 5000, 3),  # the crowd is no box
        ("box_share", "median", 100 / 5000, 3),
        ("height", "max", 50, 8),
        ("height", "median", 50, 8),
        ("width", "max", 100, 8),
        ("width", "median", 100, 8),
    ]


def test_only_what_changed_is_described_again(store: LakeStore) -> None:
    _run(store)
    again = _run(store, execution={"workers": 1})
    assert (again.status, again.counts.up_to_date) == ("up_to_date", COUNT)
    kept = _run(store, name="kept", images="kept")
    assert kept.counts.done == COUNT - 1  # another profile, and the odd one was not kept
    assert [name for name, *_ in _suspects(store)] == ["kept", "profile", "profile"]
    # The age is corrected: nothing is odd about it any more.
    seed(store, {"images": [_row(3)], "annotations": [_box(1, 10)]})
    assert _run(store).counts.done == COUNT
    assert _suspects(store) == [("kept", image_id(1), "box_small")]
    assert _run(store, max_age=56).facts["suspicious: age_high"] == 1


def test_one_of_several_sources_must_be_named(store: LakeStore) -> None:
    with pytest.raises(SourceError, match=r"No such source.*got writer. Its sources: reader"):
        _run(store, source="writer")
    seed(store, {"annotations": [_box(5, 30, source="second")]})
    with pytest.raises(SourceError, match=r"Several sources.*got reader, second. Name one"):
        _run(store)
    assert _run(store, source="second").facts["boxes of"] == "second"


def test_a_data_set_without_images_or_boxes_has_no_profile_of_them(store: LakeStore) -> None:
    seed(store, {"images": [_row(20, dataset="nothing", state="gone")]})
    assert _run(store, dataset="nothing").status == "up_to_date"
    seed(store, {"images": [_row(20, dataset="plain"), _row(21, dataset="plain", sex=None)]})
    assert _run(store, dataset="plain").facts == {"suspicious: sex_missing": 1}
