"""Boxes of CSV files, COCO files and DICOM headers."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset

from cluster.lake.store import LakeStore
from jobs.annotate.sources import coco_entries, csv_entries
from schemas.errors import RejectedImage, SourceError
from schemas.specs.annotate import CocoBoxes, CsvBoxes
from tests.jobs.annotate.archive import (
    annotated,
    boxes,
    catalogue,
    mask,
    picture,
    png,
    rejects,
    table,
    write,
)
from tests.jobs.annotate.ultrasound import ultrasound_file
from workers.annotations.annotating import given_of
from workers.annotations.checks import Categories, check_all


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Three upright images of 60 x 40 pixels, and one that its EXIF turns to 40 x 60."""
    for number, label in enumerate(("benign", "malignant", "normal")):
        write(tmp_path / "archive" / label / f"{number}.png", png(picture(number)))
    write(tmp_path / "archive" / "benign" / "turned.jpg", _turned(picture(9)))
    lake = LakeStore.open(str(tmp_path / "lake"), create=True)
    catalogue(tmp_path / "archive", lake, fields={"path": r"(?P<label>\w+)/.*"})
    return lake


def _turned(pixels: np.ndarray) -> bytes:
    """A JPEG whose EXIF orientation is 6: it is shown turned by 90 degrees."""
    data = bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    tiff = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    body = b"Exif\x00\x00" + tiff
    return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


def _csv(store: LakeStore, folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Any:
    write(folder / "boxes.csv", table(rows))
    stated = {"file": str(folder / "boxes.csv")} | changes.pop("csv", {})
    return annotated(store, csv=stated, **changes)


ROW = {"path": "benign/0.png", "category": "cyst", "x": 1, "y": 2, "w": 3.5, "h": 4}


def _found(image: str, category: str, *edges: float, **changes: Any) -> dict[str, Any]:
    x, y, w, h = edges
    found = {"image": image, "category": category, "x": x, "y": y, "w": w, "h": h}
    return found | {"area": w * h, "iscrowd": False} | changes


def test_rows_become_boxes_and_what_fits_nowhere_is_named(store: LakeStore, tmp_path: Path) -> None:
    rows = [
        ROW,
        ROW | {"x": 50, "w": 10.6},  # a rounding beyond the edge is cut off
        ROW | {"path": "malignant/1", "category": ""},  # without ending; the label is the category
        ROW | {"path": "normal/2.png", "x": 50, "w": 12},
        ROW | {"path": "normal/2.png", "h": 0},
        ROW | {"path": "normal/2.png", "y": "four"},
        ROW | {"path": "normal/1.png"},
        ROW | {"path": ""},
        ROW | {"path": "turned.jpg", "x": 30, "y": 50, "w": 9, "h": 9},
    ]
    report = _csv(store, tmp_path, rows)
    assert (report.counts.done, report.counts.rejected) == (3, 3)
    assert boxes(store) == [
        _found("0.png", "cyst", 1, 2, 3.5, 4),
        _found("0.png", "cyst", 50, 2, 10, 4),
        _found("1.png", "malignant", 1, 2, 3.5, 4),
        _found("turned.jpg", "cyst", 30, 50, 9, 9),
    ]
    told = store.query("SELECT uri, reason, detail FROM rejects ORDER BY uri").to_pylist()
    assert [row["uri"].rpartition("/")[2] for row in told] == [
        "2.png",
        "boxes.csv#row 8",
        "boxes.csv#row 9",
    ]
    assert told[0]["reason"] == "outside_image"
    assert told[0]["detail"] == (
        "row 5: 50, 2, 12 x 4 px reaches 2 px out of 60 x 40; row 6: 3.5 x 0 px; "
        "row 7: a number is missing or none"
    )
    assert _csv(store, tmp_path, rows).status == "up_to_date"


def test_masks_are_of_the_image_as_it_is_shown(store: LakeStore, tmp_path: Path) -> None:
    """What was drawn on the picture before its EXIF turned it does not fit."""
    masks = {"root": str(tmp_path / "masks"), "path": r"(?P<category>\w+)/(?P<image>.+)\.png"}
    write(
        tmp_path / "masks" / "cyst" / "turned.png", png(mask((30, 50, 9, 9), height=60, width=40))
    )
    assert annotated(store, masks=masks).counts.done == 1
    assert boxes(store) == [_found("turned.jpg", "cyst", 30, 50, 9, 9)]
    write(tmp_path / "masks" / "cyst" / "turned.png", png(mask((50, 1, 9, 9))))
    assert annotated(store, masks=masks).counts.rejected == 1
    assert rejects(store) == [("size_mismatch", "its mask is 60 x 40, the image 40 x 60")]
    assert boxes(store) == []


def test_a_row_that_goes_takes_its_box_along(store: LakeStore, tmp_path: Path) -> None:
    other = ROW | {"path": "1.png"}
    _csv(store, tmp_path, [ROW, other])
    again = _csv(store, tmp_path, [other, ROW])  # in another order
    assert again.status == "up_to_date"
    report = _csv(store, tmp_path, [ROW])
    assert (report.counts.gone, report.counts.up_to_date) == (1, 1)
    assert boxes(store) == [_found("0.png", "cyst", 1, 2, 3.5, 4)]
    # An image whose box is wrong now does not keep the one it had.
    report = _csv(store, tmp_path, [ROW | {"w": -1}, other])
    assert (report.counts.done, report.counts.rejected) == (1, 1)
    assert boxes(store) == [_found("1.png", "cyst", 1, 2, 3.5, 4)]


@pytest.mark.parametrize("wrong", [{"w": -1}, {"category": "car"}])
def test_a_source_that_goes_back_to_what_was_rejected_takes_its_boxes_along(
    store: LakeStore, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    """The old reject says nothing of what was annotated since."""
    for row, counted in ((ROW, (1, 0)), (ROW | wrong, (0, 1))) * 2:
        counts = _csv(store, tmp_path, [row], allowed=["cyst"]).counts
        assert (counts.done, counts.rejected) == counted
        assert len(boxes(store)) == counts.done
    assert _csv(store, tmp_path, [ROW | wrong], allowed=["cyst"]).status == "up_to_date"


def test_lines_may_end_as_on_any_system(store: LakeStore, tmp_path: Path) -> None:
    lines = [b"path,category,x,y,w,h", b'0.png,"a\ncyst",1,2,3,4', b"1.png,cyst,1,2,3,4"]
    for ending in (b"\n", b"\r\n", b"\r"):
        entries = list(csv_entries(CsvBoxes(file="a.csv"), ending.join(lines) + ending))
        assert [one.image for one in entries] == ["0.png", "1.png"]
        assert [one.box and one.box["category"] for one in entries] == ["a\ncyst", "cyst"]


def test_corners_other_names_and_semicolons(store: LakeStore, tmp_path: Path) -> None:
    text = "Datei;x1;y1;x2;y2;crowd;area\n0.png;1;2;4;6;yes;7\n0.png;1;2;4;6;no;\n"
    write(tmp_path / "boxes.csv", ("\ufeff" + text).encode())
    columns = {"image": "Datei", "left": "x1", "top": "y1", "right": "x2", "bottom": "y2"}
    stated = {"file": str(tmp_path / "boxes.csv"), "boxes": "corners"}
    report = annotated(
        store,
        csv=stated | {"columns": columns | {"iscrowd": "crowd"}},
        categories={"benign": "lesion"},
        allowed=["lesion"],
    )
    assert report.counts.done == 1
    assert boxes(store) == [
        _found("0.png", "lesion", 1, 2, 3, 4, area=7, iscrowd=True),
        _found("0.png", "lesion", 1, 2, 3, 4),
    ]


def test_a_category_that_is_not_allowed_rejects(store: LakeStore, tmp_path: Path) -> None:
    rows = [ROW, ROW | {"path": "1.png", "category": "car"}]
    report = _csv(store, tmp_path, rows, allowed=["cyst"])
    assert (report.counts.done, report.counts.rejected) == (1, 1)
    assert rejects(store) == [("unknown_category", "row 3: the category car is not allowed")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"path,x,y,w\n", "no column `h`"),
        (b"\xff\xfe\x00", "no UTF-8"),
        (b"path,x,y,w,h\n" + b"a" * 200_000 + b",1,2,3,4\n", "can't be parsed.*got row 2"),
        (b"a" * 200_000 + b",path,x,y,w,h\n0.png,1,2,3,4\n", "can't be parsed.*got row 1"),
    ],
)
def test_files_that_are_no_boxes_are_errors(content: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        list(csv_entries(CsvBoxes(file="boxes.csv"), content))


def _document() -> dict[str, Any]:
    names = ["benign/0.png", "malignant/1.png", "normal/2.png", "turned.jpg"]
    return {
        "categories": [{"id": 1, "name": "cyst"}, {"id": 2, "name": "hcc"}],
        "images": [
            {"id": number, "file_name": name, "width": 60, "height": 40}
            for number, name in enumerate(names[:3], 10)
        ]
        + [{"id": 13, "file_name": names[3], "width": 40, "height": 60}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 2, "bbox": [1.25, 2, 3, 4], "area": 5.5},
            {"id": 2, "image_id": 10, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1},
            {"id": 3, "image_id": 13, "category_id": 1, "bbox": [30, 50, 10, 10]},
        ],
    }


def _coco(store: LakeStore, folder: Path, document: Any) -> Any:
    write(folder / "coco.json", json.dumps(document).encode())
    return annotated(store, coco={"file": str(folder / "coco.json")})


def test_a_coco_file_comes_in(store: LakeStore, tmp_path: Path) -> None:
    report = _coco(store, tmp_path, _document())
    assert (report.counts.done, report.counts.rejected) == (4, 0)
    assert boxes(store) == [
        _found("0.png", "cyst", 0, 0, 60, 40, iscrowd=True),
        _found("0.png", "hcc", 1.25, 2, 3, 4, area=5.5),
        _found("turned.jpg", "cyst", 30, 50, 10, 10),
    ]
    assert store.query("SELECT count(*) AS n FROM annotated_images")["n"].to_pylist() == [4]


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"id": 0}, "invalid_id", "annotation 0: ids are whole numbers from 1"),
        ({"id": "a"}, "invalid_id", "annotation without a number: ids are whole numbers from 1"),
        ({"id": 2}, "duplicate_id", "annotation 2: its id occurs twice"),
        ({"category_id": 3}, "unknown_category", "annotation 9: the file does not define"),
        ({"bbox": [0, 0, 0, 4]}, "empty_box", "annotation 9: 0 x 4 px"),
        ({"area": 0}, "empty_box", "annotation 9: an area of 0 px²"),
        ({"bbox": [-2, 0, 9, 9]}, "outside_image", "annotation 9: -2, 0, 9 x 9 px reaches 2 px"),
        ({"bbox": [60, 0, 1, 9]}, "outside_image", "annotation 9: all of it lies beyond the edge"),
        ({"bbox": [float("nan"), 0, 1, 9]}, "malformed_annotation", "annotation 9: a number is"),
        ({"bbox": [1, 2, 3]}, "malformed_annotation", "annotation 9: its bbox is no list of four"),
    ],
)
def test_what_is_wrong_with_an_annotation_is_named(changes: Any, reason: str, detail: str) -> None:
    document = _document()
    wrong = {"id": 9, "image_id": 11, "category_id": 1, "bbox": [1, 2, 3, 4]} | changes
    document["annotations"].append(wrong)
    entries = coco_entries(CocoBoxes(file="a.json"), json.dumps(document).encode())
    last = list(entries)[-1]
    assert last.image == "malignant/1.png" and last.box is not None
    with pytest.raises(RejectedImage) as refused:
        check_all([given_of(last.box)], (40, 60), Categories({}), None)
    assert refused.value.reason == reason
    assert refused.value.detail.startswith(detail)


def test_an_image_is_annotated_whole_or_not_at_all(store: LakeStore, tmp_path: Path) -> None:
    document = _document()
    document["annotations"] += [
        {"id": 2, "image_id": 11, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 0, "image_id": 12, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 4, "image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]},
    ]
    report = _coco(store, tmp_path, document)
    assert (report.counts.done, report.counts.rejected) == (1, 4)
    assert [box["image"] for box in boxes(store)] == ["turned.jpg"]
    assert rejects(store) == [
        ("duplicate_id", "annotation 2: its id occurs twice"),
        ("duplicate_id", "annotation 2: its id occurs twice"),
        ("invalid_id", "annotation 0: ids are whole numbers from 1"),
        ("unknown_image", "the data set has no such image"),
    ]


def test_images_that_are_listed_wrongly_are_named(store: LakeStore, tmp_path: Path) -> None:
    document = _document()
    document["images"][0] |= {"width": 40, "height": 60}
    document["images"][2]["id"] = 11
    document["images"].append({"id": 20, "file_name": "elsewhere.png"})
    report = _coco(store, tmp_path, document)
    assert (report.counts.done, report.counts.rejected) == (1, 4)
    assert rejects(store) == [
        ("duplicate_id", "image 11: its id occurs twice"),
        ("duplicate_id", "image 11: its id occurs twice"),
        ("size_mismatch", "its image: 40 x 60 by the file, 60 x 40 px here"),
        ("unknown_image", "the data set has no such image"),
    ]


@pytest.mark.parametrize("document", [[], {"images": []}, "text", {"images": [1]}])
def test_files_that_are_no_coco_are_errors(document: Any) -> None:
    with pytest.raises(SourceError, match="no COCO data set"):
        list(coco_entries(CocoBoxes(file="a.json"), json.dumps(document).encode()))


def test_json_that_is_nested_too_deep_is_an_error() -> None:
    with pytest.raises(SourceError, match=r"no COCO data set.*got no JSON"):
        list(coco_entries(CocoBoxes(file="a.json"), b"[" * 200_000))


def test_a_frame_that_is_no_number_rejects_its_image(store: LakeStore, tmp_path: Path) -> None:
    """It never becomes all frames."""
    document = _document()
    document["images"][0]["frame"] = "3"
    report = _coco(store, tmp_path, document)
    assert (report.counts.done, report.counts.rejected) == (3, 1)
    assert rejects(store) == [("malformed_annotation", "image 10: its frame is no whole number")]
    assert [box["image"] for box in boxes(store)] == ["turned.jpg"]


@pytest.mark.parametrize("frame", ["f3", 3.0, True, [3]])
def test_a_frame_of_a_coco_file_that_is_no_number_is_a_fault(frame: Any) -> None:
    document = _document()
    document["images"][0]["frame"] = frame
    document["annotations"][0]["id"] = 0  # what is wrong with itself is told first
    entries = coco_entries(CocoBoxes(file="a.json"), json.dumps(document).encode())
    told = [one.box and one.box["reason"] for one in entries if one.image == "benign/0.png"]
    assert told == ["malformed_annotation", "invalid_id", "malformed_annotation"]


@pytest.mark.parametrize("frame", ["f3", "3.0", "-1", "9" * 5000])
def test_a_frame_of_a_table_that_is_no_number_is_a_fault(frame: str) -> None:
    content = f"path,x,y,w,h,frame\n0.png,1,2,3,4,{frame}\n".encode()
    (entry,) = csv_entries(CsvBoxes(file="a.csv"), content)
    assert entry.box is not None
    assert (entry.frame, entry.box["reason"]) == (None, "malformed_annotation")
    assert entry.box["detail"] == "its frame is no whole number"


def test_regions_of_headers(tmp_path: Path) -> None:
    regions = []
    for spatial, edges in ((1, (10, 5, 49, 39)), (3, (0, 0, 60, 40))):
        region = Dataset()
        region.RegionSpatialFormat = spatial
        for name, edge in zip(("MinX0", "MinY0", "MaxX1", "MaxY1"), edges, strict=True):
            setattr(region, f"RegionLocation{name}", edge)
        regions.append(region)
    write(tmp_path / "archive" / "clip.dcm", ultrasound_file(regions, frames=2))
    write(tmp_path / "archive" / "plain.png", png(picture(1)))
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    catalogue(tmp_path / "archive", store, fields=None)
    report = annotated(store, dicom={}, categories={"spectral": "doppler"})
    assert (report.counts.done, report.facts["boxes"]) == (3, 4)
    # Both corners belong to a region; one pixel beyond the edge is a writer that counts from 1.
    assert boxes(store) == [
        *[_found("clip.dcm", "2d", 10, 5, 40, 35)] * 2,
        *[_found("clip.dcm", "doppler", 0, 0, 60, 40)] * 2,
    ]
    assert annotated(store, dicom={}, categories={"spectral": "doppler"}).status == "up_to_date"
