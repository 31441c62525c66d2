"""Choosing images to explain: by labels at the operating point, by certainty, by query."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.lake.store import LakeStore
from jobs import explain
from jobs.bundles import model_row
from schemas.errors import BundleError, QueryError, SplitError
from schemas.specs.explain import ExplainSpec
from tests.jobs.seeding import (
    DATASET,
    SPLIT,
    bundle_config,
    image,
    image_id,
    open_lake,
    seed,
)

MODEL_ID = "00112233aabbccdd"


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Forty images, ill from 2 to 3 of every four; scored but for the last; threshold 0.25."""
    lake = open_lake(tmp_path)
    seed(lake, {"models": [model_row(bundle_config("lungs"), 1, nightly=False)]})
    generator = np.random.default_rng(0)
    rows = [
        _prediction(n, float(np.float32(generator.beta(2, 4 if n % 4 < 2 else 1))))
        for n in range(39)
    ]
    seed(lake, {"predictions": rows})
    return lake


def _prediction(number: int, ill: float, model_id: str = MODEL_ID) -> dict[str, Any]:
    return {
        "image_id": image_id(number),
        "model_id": model_id,
        "scores": [ill, 1 - ill],
        "score": max(ill, 1 - ill),
    }


def _spec(**changes: Any) -> ExplainSpec:
    return ExplainSpec.model_validate({"dataset": DATASET, "model": "lungs"} | changes)


def _chosen(store: LakeStore, **changes: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = explain.plan(_spec(**changes), store).inputs.to_pylist()
    return rows


def _ill(store: LakeStore) -> dict[str, float]:
    rows = store.query("SELECT image_id, scores[1] AS ill FROM predictions").to_pylist()
    return {row["image_id"]: row["ill"] for row in rows}


def _certainty(ill: float) -> float:
    return (ill - 0.25) / 0.75 if ill >= 0.25 else (0.25 - ill) / 0.25


def test_wrong_ones_come_most_certain_first_as_the_view_labels_them(store: LakeStore) -> None:
    by_view = store.query(
        "SELECT image_id, scored.label AS said, images.label AS actual FROM latest_predictions "
        "AS scored JOIN current_images AS images USING (image_id) WHERE said <> actual"
    ).to_pylist()
    expected = {row["image_id"]: (row["said"], row["actual"]) for row in by_view}
    rows = _chosen(store)
    assert 3 < len(rows) < 39
    assert {row["image_id"]: (row["target"], row["actual"]) for row in rows} == expected
    ill = _ill(store)
    certain = [_certainty(ill[row["image_id"]]) for row in rows]
    assert certain == sorted(certain, reverse=True)
    assert [row["image_id"] for row in _chosen(store, limit=2)] == [
        row["image_id"] for row in rows[:2]
    ]
    actual = _chosen(store, target="actual")
    assert {row["image_id"]: row["target"] for row in actual} == {
        one: truth for one, (_, truth) in expected.items()
    }


@pytest.mark.parametrize("choose", ["certain", "uncertain"])
def test_certainty_is_the_distance_to_the_operating_point(store: LakeStore, choose: str) -> None:
    ill = _ill(store)
    rows = _chosen(store, choose=choose, limit=12)
    ranked = sorted(ill, key=lambda one: (_certainty(ill[one]), one), reverse=choose == "certain")
    assert [row["image_id"] for row in rows] == ranked[:12]
    assert {row["target"] == "ill" for row in rows if ill[row["image_id"]] >= 0.25} == {True}


def test_more_classes_are_told_apart_by_the_second_likeliest(store: LakeStore) -> None:
    config = bundle_config(
        "three", "ff" * 8, classes=("a", "ill", "well"), num_classes=3, operating_point=None
    )
    scores = {0: (0.1, 0.5, 0.4), 2: (0.7, 0.2, 0.1), 3: (0.34, 0.33, 0.33), 4: (0.05, 0.05, 0.9)}
    rows = [
        {"image_id": image_id(n), "model_id": "ff" * 8, "scores": list(one), "score": max(one)}
        for n, one in scores.items()
    ]
    models = [model_row(config, 1, nightly=False)]
    seed(store, {"models": models, "predictions": rows})
    found = _chosen(store, model="three", choose="certain")
    assert [row["image_id"] for row in found] == [image_id(n) for n in (4, 2, 0, 3)]
    assert [row["target"] for row in found] == ["well", "a", "ill", "a"]
    wrong = _chosen(store, model="three")
    assert [row["image_id"] for row in wrong] == [image_id(n) for n in (2, 0, 3)]


def test_another_version_and_a_moved_point_are_told_apart(store: LakeStore) -> None:
    newer = model_row(bundle_config("lungs", "ee" * 8), 2, nightly=False)
    seed(store, {"models": [newer], "predictions": [_prediction(0, 0.9, "ee" * 8)]})
    assert [row["image_id"] for row in _chosen(store)] == [image_id(0)]
    older = _chosen(store, model="lungs@1")
    assert len(older) > 3
    again = explain.plan(_spec(model="lungs@1"), store)
    assert again.params["model_id"] == MODEL_ID
    assert again.key == ("explain", MODEL_ID)
    assert again.fingerprint != explain.plan(_spec(), store).fingerprint


def test_a_split_narrows_the_choice_and_must_be_there(store: LakeStore) -> None:
    rows = _chosen(store, choose="certain", split=SPLIT)
    assert {row["image_id"] for row in rows} == {image_id(n) for n in range(32, 39)}
    more = _chosen(store, choose="certain", split=SPLIT, parts=("val", "test"))
    assert len(more) == 15
    with pytest.raises(SplitError, match=r"split nowhere.*none in test"):
        _chosen(store, split="nowhere")


def test_images_without_score_or_label_are_counted_and_left_out(store: LakeStore) -> None:
    seed(store, {"images": [image(50, None), image(51, "odd")]})
    seed(store, {"predictions": [_prediction(50, 0.9), _prediction(51, 0.9)]})
    facts = explain.plan(_spec(), store).facts
    assert (facts["without a score"], facts["without a label"]) == (1, 2)
    certain = {row["image_id"]: row for row in _chosen(store, choose="certain")}
    assert certain[image_id(51)]["actual"] is None
    assert image_id(39) not in certain
    assert image_id(50) not in {
        row["image_id"] for row in _chosen(store, choose="certain", target="actual")
    }


def test_a_query_says_which_and_in_which_order(store: LakeStore) -> None:
    ids = ", ".join(f"'{image_id(n)}'" for n in (7, 3, 39))
    asked = f"SELECT image_id, uri FROM images WHERE image_id IN ({ids}) ORDER BY image_id DESC"
    plan = explain.plan(_spec(choose="query", query=asked, target="well"), store)
    assert plan.inputs["image_id"].to_pylist() == [image_id(7), image_id(3)]
    assert set(plan.inputs["target"].to_pylist()) == {"well"}
    assert (plan.facts["selected by the query"], plan.facts["without a score"]) == (3, 1)
    first = _chosen(store, choose="query", query=asked, limit=1)
    assert [row["image_id"] for row in first] == [image_id(7)]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT uri FROM images", r"no column `image_id`: got uri\. Write SELECT image_id"),
        ("SELECT 1 AS image_id", "holds no image ids: got INTEGER|got int32"),
        ("DELETE FROM images", "only reads"),
        ("SELECT image_id FROM pictures", "no such table or view.*pictures"),
        ("SELECT image_id FROM read_csv('/etc/passwd')", "nothing else"),
    ],
)
def test_queries_that_select_no_images_are_refused(store: LakeStore, query: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        _chosen(store, choose="query", query=query)


def test_a_class_the_model_does_not_know_is_refused(store: LakeStore) -> None:
    with pytest.raises(BundleError, match=r"no such class.*lungs@1.*got sick.*ill, well"):
        _chosen(store, target="sick")
    with pytest.raises(BundleError, match="No such bundle"):
        _chosen(store, model="livers")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"choose": "query"}, "need each other"),
        ({"query": "SELECT 1"}, "need each other"),
        ({"regions": "a", "annotations": "b"}, "give one"),
        ({"parts": ()}, "name one"),
    ],
)
def test_specs_that_contradict_themselves_are_refused(changes: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _spec(**changes)


def test_boxes_of_a_source_become_the_region(store: LakeStore) -> None:
    box = {"image_id": image_id(3), "source": "reader@1", "x": 1.0, "y": 2.0, "w": 3.0, "h": 4.0}
    others = [
        box | {"x": 9.0},
        box | {"source": "reader@2"},
        box | {"iscrowd": True, "x": 7.0},
        box | {"image_id": image_id(4)},
    ]
    asked = {"choose": "query", "query": "SELECT image_id FROM images WHERE uri < 'archive/0004'"}
    before = {row["image_id"]: row["settings"] for row in _chosen(store, **asked)}
    seed(store, {"annotations": [box, *others]})
    rows = {row["image_id"]: row for row in _chosen(store, **asked, annotations="reader@1")}
    assert rows[image_id(3)]["boxes"] == [[1, 2, 3, 4], [9, 2, 3, 4]]
    assert rows[image_id(2)]["boxes"] == []
    assert rows[image_id(2)]["settings"] == before[image_id(2)]
    assert rows[image_id(3)]["settings"] != before[image_id(3)]
