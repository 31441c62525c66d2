"""A review of annotations: which detections are listed, by whom, and in what files."""

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.lake.store import LakeStore
from jobs import annotate, review
from jobs.coco import Selection, export_annotations
from schemas.errors import SourceError
from schemas.plan import ShardResult
from schemas.protocols import Report
from schemas.specs.annotate import AnnotateSpec, CocoBoxes
from schemas.specs.review import ReviewSpec
from tests.jobs.detecting import (
    SOURCE,
    ComputingPool,
    detector_config,
    facts,
    found,
    mark,
    put_detector,
    rejected,
    scored,
)
from tests.jobs.seeding import DATASET, image, image_id, open_lake, place, seed
from workers.annotations import annotating
from workers.detection import missing
from workers.detection.missing import missing_boxes

BOX, FAR, NEAR = (10, 10, 40, 40), (100, 100, 30, 30), (104, 104, 30, 30)
FIRST, SECOND = "aa" * 8, "bb" * 8


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Images 0 to 3 are fold 0, 4 to 7 fold 1; each of two models held one of them out.

    Fold 2 is validated on by both.
    """
    lake = open_lake(tmp_path)
    numbers = range(8)
    for name, model_id, fold in (("first", FIRST, 0), ("second", SECOND, 1)):
        data = {"dataset": DATASET, "split": "folded", "fold": fold, "inner_fold": 2}
        put_detector(lake, detector_config(name, model_id, data=data))
    places = [
        place(n, "train", split_name="folded", fold=n // 4 if n < 8 else 2) for n in range(12)
    ]
    sized = [image(n, "ill", width=150, height=140, etag="sized") for n in range(12)]
    seed(
        lake,
        {
            "images": sized,
            "splits": places,
            "annotations": [
                *(mark(n, "cyst", BOX) for n in (*numbers, 8)),
                mark(6, "cyst", FAR, source="seen", iscrowd=True),
            ],
            "predictions": [*scored(range(12), FIRST), *scored(range(12), SECOND)],
            "detections": [
                found(0, "cyst", 0.95, BOX, model_id=FIRST),  # marked
                found(0, "cyst", 0.8, FAR, model_id=FIRST),  # likely missing
                found(0, "HCC", 0.7, NEAR, model_id=FIRST),  # the same again
                found(1, "cyst", 0.99, FAR, model_id=SECOND),  # learned from it
                found(2, "HCC", 0.1, FAR, model_id=FIRST),  # not sure enough
                found(4, "HCC", 0.9, (130, 100, 40, 60), model_id=SECOND),  # beyond the edge
                found(6, "HCC", 0.97, FAR, model_id=SECOND),  # seen before
                found(8, "HCC", 0.97, FAR, model_id=SECOND),  # both validated on it
            ],
        },
    )
    return lake


def asked(**changes: Any) -> ReviewSpec:
    values = {
        "dataset": DATASET, "split": "folded", "annotations": SOURCE,
        "models": ("first", "second"), "ignored": "seen",
    }  # fmt: skip
    return ReviewSpec.model_validate(values | changes)


def run(store: LakeStore, spec: ReviewSpec) -> Report:
    return review.run(spec, ComputingPool(missing.load), store)


def listed(store: LakeStore, spec: ReviewSpec) -> ShardResult:
    plan = review.plan(spec, store)
    return missing.load(plan.params)(plan.inputs, [])


def test_confident_detections_of_models_that_did_not_learn_there(store: LakeStore) -> None:
    assert run(store, asked()).counts.done == 8
    rows = store.query("SELECT * FROM candidates ORDER BY rank").to_pylist()
    shown = [(row["rank"], row["image_id"], row["model_id"], row["category"]) for row in rows]
    assert shown == [(1, image_id(4), SECOND, "HCC"), (2, image_id(0), FIRST, "cyst")]
    assert [rows[0][edge] for edge in "xywh"] == [130, 100, 20, 40]  # within the image
    assert [rows[1][edge] for edge in "xywh"] == [*FAR]
    assert [(row["votes"], row["overlap"]) for row in rows] == [(1, 0), (1, 0)]
    told = facts(store, "review")
    assert (told["judged by first@1"], told["judged by second@1"]) == (4, 4)
    assert told["no model may judge"] == 1
    assert run(store, asked()).status == "up_to_date"
    assert run(store, asked(limit=1)).status == "published"


def test_files_for_review_and_to_ignore_until_then(store: LakeStore) -> None:
    files = listed(store, asked()).files
    assert set(files) == {"review.json", "ignored.json", "candidates.csv"}
    whole, crowds = (json.loads(files[name]) for name in ("review.json", "ignored.json"))
    assert [one["file_name"] for one in whole["images"]] == ["0000.png", "0004.png"]
    assert [one["id"] for one in whole["images"]] == [1, 5]  # as `rayward coco` numbers them
    assert [one["id"] for one in whole["annotations"]] == [1, 2, 3, 4]
    marks = [one for one in whole["annotations"] if "attributes" not in one]
    assert [one["bbox"] for one in marks] == [[*BOX], [*BOX]]
    candidates = [one["attributes"] for one in whole["annotations"] if "attributes" in one]
    assert candidates == [
        {"likely_missing": True, "rank": 1, "score": 0.9},
        {"likely_missing": True, "rank": 2, "score": 0.8},
    ]
    assert [(one["iscrowd"], one["bbox"]) for one in crowds["annotations"]] == [
        (1, [130, 100, 20, 40]),
        (1, [*FAR]),
    ]
    rows = list(csv.DictReader(io.StringIO(files["candidates.csv"].decode())))
    assert [row["score"] for row in rows] == ["0.9", "0.8"]


def test_what_is_listed_can_be_annotated_as_regions_to_ignore(
    store: LakeStore, tmp_path: Path
) -> None:
    file = tmp_path / "ignored.json"
    file.write_bytes(listed(store, asked()).files["ignored.json"])
    spec = AnnotateSpec(dataset=DATASET, source="unsure@1", coco=CocoBoxes(file=str(file)))
    report = annotate.run(
        spec, ComputingPool(lambda params: annotating.load(params, _no_file)), store
    )
    assert (report.counts.done, report.counts.rejected) == (2, 0)
    rows = store.query(
        "SELECT image_id, x, y, w, h, iscrowd FROM current_annotations WHERE source = 'unsure@1' "
        "ORDER BY image_id"
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (image_id(0), *FAR, True),
        (image_id(4), 130, 100, 20, 40, True),
    ]
    again = listed(store, asked(ignored="unsure@1")).tables["candidates"]
    assert again["image_id"].to_pylist() == [image_id(6)]  # no longer left out; the others are


def _no_file(*_: object) -> Any:
    raise AssertionError("boxes of a COCO file need no pixels")


def test_thresholds_and_regions_may_be_others(store: LakeStore) -> None:
    # 2 too is sure enough now; 6 is no longer left out.
    found_all = listed(store, asked(min_score=0.05, ignored=None)).tables["candidates"]
    assert sorted(found_all["image_id"].to_pylist()) == [image_id(n) for n in (0, 2, 4, 6)]
    assert listed(store, asked(iou=0.9)).facts["likely missing"] == 3  # now they are two lesions


def test_lesions_whose_annotation_was_rejected_are_not_missing(store: LakeStore) -> None:
    withdrawn = {"image_id": image_id(4), "source": SOURCE}
    seed(store, {"annotations": [withdrawn]})  # the source names it no longer: it has no box
    rows = listed(store, asked(images="all")).tables["candidates"]
    assert sorted(rows["image_id"].to_pylist()) == [image_id(0), image_id(4)]
    seed(store, {"annotations": [withdrawn], "rejects": [rejected(4)]})
    for images in ("all", "annotated"):
        rows = listed(store, asked(images=images)).tables["candidates"]
        assert rows["image_id"].to_pylist() == [image_id(0)]
        facts_told = review.plan(asked(images=images), store).facts
        assert facts_told["annotation rejected"] == 1
        assert facts_told["judged by second@1"] == 3


def test_only_images_of_the_review_count(store: LakeStore) -> None:
    """The models have scored another data set, and have not scored one image of this one."""
    other = [image(n, None, dataset="livers") for n in range(50, 55)]
    unscored = image(60, "ill", width=150, height=140)
    unmarked = image(61, "ill", width=150, height=140)
    numbers = range(50, 55)
    seed(
        store,
        {
            "images": [*other, unscored, unmarked],
            "splits": [place(n, "test", split_name="folded") for n in (60, 61)],
            "annotations": [mark(60, "cyst", BOX)],
            "predictions": [
                *(scored(numbers, FIRST)), *(scored(numbers, SECOND)), *scored([61], FIRST),
            ],
            "detections": [found(n, "cyst", 0.99, FAR, model_id=FIRST) for n in numbers],
        },
    )  # fmt: skip
    told = review.plan(asked(), store).facts
    assert (told["judged by first@1"], told["judged by second@1"]) == (4, 4)
    # Both models validated on 8, and 60 lacks a score; 61 nobody has annotated.
    assert (told["no model may judge"], told["without a score"]) == (1, 1)


def test_files_are_named_from_the_folder_of_the_data_set(store: LakeStore) -> None:
    """As in `rayward coco`, also where none of the images listed lies above a folder."""
    moved = [
        image(
            n, "ill", width=150, height=140, seen_at=datetime(2026, 2, 1, tzinfo=UTC),
            uri=f"s3://bucket/livers/{'ill' if n < 8 else 'well'}/{n}.png", state="present",
        )
        for n in range(12)
    ]  # fmt: skip
    gone = [
        image(n, None, state="gone", seen_at=datetime(2026, 2, 1, tzinfo=UTC)) for n in range(40)
    ]
    seed(store, {"images": [*gone, *moved]})
    whole = json.loads(listed(store, asked()).files["review.json"])
    exported = export_annotations(store, Selection(DATASET), SOURCE)
    names = {one["id"]: one["file_name"] for one in exported["images"]}
    assert [one["file_name"] for one in whole["images"]] == ["ill/0.png", "ill/4.png"]
    assert [names[one["id"]] for one in whole["images"]] == ["ill/0.png", "ill/4.png"]


def test_several_models_that_see_one_lesion() -> None:
    def seen(model: str, score: float, x: float) -> dict[str, Any]:
        box = {"x": x, "y": 10.0, "w": 20.0, "h": 20.0}
        return {"model_id": model, "category": model, "score": score, **box}

    marks = [
        {"category": "cyst", "x": 60.0, "y": 10.0, "w": 20.0, "h": 20.0, "ignored": False},
        {"category": "cyst", "x": 0.0, "y": 60.0, "w": 99.0, "h": 30.0, "ignored": True},
    ]
    inside = {**seen("c", 0.99, 5.0), "y": 65.0}
    rows = {
        "image_id": "one", "width": 100, "height": 100, "marks": marks,
        "found": [seen("a", 0.5, 10.0), seen("b", 0.9, 12.0), inside, seen("a", 0.4, 73.0)],
    }  # fmt: skip
    first, second = missing_boxes(rows, 0.25)
    assert (first["model_id"], first["votes"], first["x"]) == ("b", 2, 12.0)
    assert (second["model_id"], second["votes"], second["x"]) == ("a", 1, 73.0)
    assert second["overlap"] == pytest.approx(7 * 20 / (2 * 400 - 140))
    assert missing_boxes(rows, 0.2)[1:] == []


def test_what_can_not_be_reviewed(store: LakeStore) -> None:
    with pytest.raises(SourceError, match="No such source"):
        review.plan(asked(annotations="nobody"), store)
    with pytest.raises(ValidationError, match="one bundle twice"):
        asked(models=("first", "first"))
    with pytest.raises(ValidationError, match="another source"):
        asked(ignored=SOURCE)
