"""Annotations and detections as COCO: read by pycocotools, and the same after a round trip."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cluster.lake.store import LakeStore
from jobs.coco import Selection, export_annotations, export_detections
from schemas.errors import SplitError, UsageError
from tests.jobs.annotate.archive import annotated, boxes
from tests.jobs.seeding import DATASET, SPLIT, image, image_id, place, seed

COUNT = 12


def _box(number: int, category: str, *edges: float, **changes: Any) -> dict[str, Any]:
    x, y, w, h = (float(np.float32(edge)) for edge in edges)
    row = {"image_id": image_id(number), "source": "reader@1", "category": category}
    return row | {"x": x, "y": y, "w": w, "h": h, "area": w * h, "made_from": "m"} | changes


def _annotations() -> list[dict[str, Any]]:
    """Boxes in all images but every third, which was looked at, and the last two, which were not.

    Numbers that float32 can't state exactly; a crowd; areas of masks.
    """
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for number in range(COUNT - 2):
        if number % 3 == 2:
            rows.append({"image_id": image_id(number), "source": "reader@1", "made_from": "m"})
            continue
        for category in ("hcc", "cyst", "hcc")[: 1 + number % 3]:
            x, y = rng.uniform(0, 30, 2)
            rows.append(_box(number, category, x, y, *rng.uniform(5, 29, 2)))
    rows[0] |= {"iscrowd": True}
    rows[1] |= {"area": 7.1}
    return rows


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    lake = LakeStore.open(str(tmp_path / "lake"), create=True)
    facts = {"width": 60, "height": 60, "age": 61.3, "sex": "F"}
    parts = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    files = [{"uri": f"archive/{n % 2}/{n:04d}.png"} for n in range(COUNT)]
    files[4] = {"uri": "archive/clip.dcm", "frame": 0}
    files[6] = {"uri": "archive/clip.dcm", "frame": 1}
    model = {"model_id": "00ff", "name": "finder", "version": 1, "family": "centernet"}
    seed(
        lake,
        {
            "images": [image(n, "ill", **facts, **files[n]) for n in range(COUNT)],
            "splits": [place(n, part) for n, part in enumerate(parts)],
            "annotations": _annotations(),
            "models": [model | {"classes": ["hcc", "cyst"]}],
        },
    )
    return lake


def _detect(store: LakeStore, rows: list[dict[str, Any]], scored: range) -> None:
    found = [
        {name: row[name] for name in ("image_id", "category", "x", "y", "w", "h")}
        | {"model_id": "00ff", "score": float(np.float32(0.9 - place / 100))}
        for place, row in enumerate(rows)
        if row.get("category")
    ]
    predictions = [{"image_id": image_id(n), "model_id": "00ff"} for n in scored]
    seed(store, {"detections": found, "predictions": predictions})


def _write(value: Any, path: Path) -> str:
    path.write_text(json.dumps(value, allow_nan=False))
    return str(path)


def test_pycocotools_reads_it_with_ids_from_one(store: LakeStore, tmp_path: Path) -> None:
    document = export_annotations(store, Selection(DATASET), None)
    read = COCO(_write(document, tmp_path / "all.json"))
    assert [one["name"] for one in read.loadCats(sorted(read.getCatIds()))] == ["cyst", "hcc"]
    assert sorted(read.cats) == [1, 2]
    assert sorted(read.anns) == list(range(1, len(document["annotations"]) + 1))
    assert len(read.imgs) == COUNT - 2  # the last two nobody has looked at
    assert min(read.imgs) == 1
    expected = [row for row in _annotations() if row.get("category")]
    assert len(read.anns) == len(expected)
    assert sum(one["iscrowd"] for one in read.anns.values()) == 1
    (first,) = (one for one in document["images"] if one["file_name"] == "0/0000.png")
    assert first["info"] == {
        "image_id": image_id(0),
        "patient_id": "p0",
        "age": 61.3,
        "sex": "F",
        "label": "ill",
    }
    frames = [one["frame"] for one in document["images"] if one["file_name"] == "clip.dcm"]
    assert frames == [0, 1]
    assert all("frame" not in one for one in document["images"] if "png" in one["file_name"])


def test_what_comes_back_is_what_went_out(store: LakeStore, tmp_path: Path) -> None:
    document = export_annotations(store, Selection(DATASET), "reader@1")
    file = _write(document, tmp_path / "all.json")
    report = annotated(store, dataset=DATASET, source="again", coco={"file": file})
    assert (report.counts.done, report.counts.rejected) == (COUNT - 2, 0)
    columns = "image_id, category, x, y, w, h, area, coalesce(iscrowd, false)"
    sql = f"SELECT {columns} FROM current_annotations WHERE source = $source ORDER BY ALL"
    before, after = (
        store.query(sql, {"source": source}).to_pylist() for source in ("reader@1", "again")
    )
    assert after == before and len(before) == len(document["annotations"])
    again = export_annotations(store, Selection(DATASET), "again")
    assert {**again, "info": None} == {**document, "info": None}
    looked = "SELECT image_id, boxes FROM annotated_images WHERE source = $source ORDER BY ALL"
    sources = ("reader@1", "again")
    one, other = (store.query(looked, {"source": name}).to_pylist() for name in sources)
    assert one == other
    assert boxes(store, "again")


def test_parts_keep_the_numbers_of_images_and_categories(store: LakeStore) -> None:
    whole = export_annotations(store, Selection(DATASET), None)
    numbers = {one["file_name"]: one["id"] for one in whole["images"] if "frame" not in one}
    val = export_annotations(store, Selection(DATASET, SPLIT, ("val",)), None)
    assert val["categories"] == whole["categories"]
    assert len(val["images"]) == 3
    assert all(numbers.get(one["file_name"], one["id"]) == one["id"] for one in val["images"])
    stated = export_annotations(store, Selection(DATASET), None, ("hcc", "cyst", "none"))
    assert [one["name"] for one in stated["categories"]] == ["hcc", "cyst", "none"]


def test_detections_fit_the_annotations_in_pycocotools(store: LakeStore, tmp_path: Path) -> None:
    """Detections that are the annotations themselves have an average precision of 1."""
    _detect(store, _annotations(), range(COUNT))
    selection = Selection(DATASET, SPLIT, ("train", "val"))
    truth = COCO(_write(export_annotations(store, selection, None), tmp_path / "truth.json"))
    results, unscored = export_detections(store, selection, "finder")
    assert unscored == 0
    found = truth.loadRes(_write(results, tmp_path / "found.json"))
    judged = COCOeval(truth, found, "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[0] == pytest.approx(1)
    of_image = [one["score"] for one in results if one["image_id"] == results[0]["image_id"]]
    assert of_image == sorted(of_image, reverse=True)
    assert results[0]["score"] == 0.9


def test_only_the_newest_scores_of_an_image_count(store: LakeStore) -> None:
    _detect(store, _annotations(), range(6))
    _detect(store, [], range(3))
    results, unscored = export_detections(store, Selection(DATASET), "finder")
    assert unscored == COUNT - 6
    late = export_annotations(store, Selection(DATASET), None)
    ids = {one["info"]["image_id"]: one["id"] for one in late["images"]}
    assert {one["image_id"] for one in results} == {ids[image_id(n)] for n in (3, 4)}


@pytest.mark.parametrize(
    ("uris", "names"),
    [
        (("s3://one/a/x.png", "s3://one/b.png"), ["a/x.png", "b.png"]),
        (("s3://one/ab/x.png", "s3://one/ac/y.png"), ["ab/x.png", "ac/y.png"]),
        (("/data/x.png", "s3://one/x.png"), ["/data/x.png", "s3://one/x.png"]),
        (("here/x.png",), ["x.png"]),
    ],
)
def test_files_are_named_below_the_deepest_folder_of_all(
    tmp_path: Path, uris: tuple[str, ...], names: list[str]
) -> None:
    lake = LakeStore.open(str(tmp_path / "lake"), create=True)
    seed(
        lake,
        {
            "images": [image(n, None, uri=uri) for n, uri in enumerate(uris)],
            "annotations": [_box(n, "cyst", 1, 2, 3, 4) for n in range(len(uris))],
        },
    )
    document = export_annotations(lake, Selection(DATASET), None)
    assert [one["file_name"] for one in document["images"]] == names


def test_what_can_not_be_exported_is_said(store: LakeStore) -> None:
    with pytest.raises(UsageError, match="no images of this data set"):
        export_annotations(store, Selection("livers"), None)
    with pytest.raises(UsageError, match=r"No such source.*got writer.*reader@1"):
        export_annotations(store, Selection(DATASET), "writer")
    with pytest.raises(UsageError, match=r"do not cover.*there are: cyst, hcc"):
        export_annotations(store, Selection(DATASET), None, ("hcc",))
    with pytest.raises(UsageError, match="named twice"):
        export_annotations(store, Selection(DATASET), None, ("hcc", "cyst", "hcc"))
    with pytest.raises(SplitError, match="no images"):
        export_annotations(store, Selection(DATASET, "other"), None)
    seed(store, {"annotations": [_box(1, "cyst", 1, 2, 3, 4, source="second")]})
    with pytest.raises(UsageError, match=r"Several sources.*got reader@1, second.*Name one"):
        export_annotations(store, Selection(DATASET), None)
    seed(store, {"images": [image(90, None, dataset="bare")]})
    with pytest.raises(UsageError, match=r"Nobody has annotated.*kind: annotate"):
        export_annotations(store, Selection("bare"), None)
