"""Whole corpora: phantoms whose truth is known, and real breast ultrasound with masks."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from cluster.lake.store import LakeStore
from jobs import profile
from jobs.coco import Selection, export_annotations
from schemas.errors import SourceError
from schemas.protocols import Report
from schemas.specs.profile import ProfileSpec
from tests.jobs.annotate.archive import DATASET, annotated, catalogue, pool, table, write
from workers.phantoms.corpus import Corpus


def _phantoms(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write a corpus with copies of files in it; returns the rows of its boxes."""
    corpus = Corpus(seed=5, count=count, size=64, modalities={"us": 1}, duplicate_share=0.2)
    boxes: list[dict[str, Any]] = []
    metadata: list[dict[str, Any]] = []
    for index in range(count):
        phantom = corpus.render(index)
        for file in phantom.files:
            write(folder / file.path, file.data)
        boxes += phantom.rows.get("boxes", [])
        metadata += phantom.rows["metadata"]
    write(folder / "metadata.csv", table(metadata))
    write(folder / "boxes.csv", table(boxes))
    return boxes


def _described(store: LakeStore, **changes: Any) -> Report:
    spec = ProfileSpec.model_validate({"dataset": DATASET} | changes)
    return profile.run(spec, pool(store), store)


def _boxes(store: LakeStore, source: str) -> list[dict[str, Any]]:
    sql = (
        "SELECT image_id, category, x, y, w, h FROM current_annotations "
        "WHERE source = $source ORDER BY ALL"
    )
    return store.query(sql, {"source": source}).to_pylist()


def test_phantoms_by_their_table_by_their_masks_and_by_coco(tmp_path: Path) -> None:
    stated = _phantoms(tmp_path, 30)
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    source = {"fields": None, "metadata": {"file": str(tmp_path / "metadata.csv")}}
    catalogue(tmp_path / "images", store, **source)
    images = store.query("SELECT count(*) AS n FROM current_images")["n"][0].as_py()

    file = {"file": str(tmp_path / "boxes.csv")}
    table_report = annotated(store, source="table", csv=file, complete=True)
    assert (table_report.counts.done, table_report.counts.rejected) == (images, 0)
    masks = {"root": str(tmp_path / "masks"), "path": r"(?P<image>.+)_\d+\.png"}
    report = annotated(store, source="masks", masks=masks)
    assert report.counts.rejected == 0
    by_table, by_masks = _boxes(store, "table"), _boxes(store, "masks")
    assert by_table == by_masks  # phantoms have the disease of their patient as category
    assert images < 30 and len(by_table) < len(stated)  # copies are one image
    ids = {  # the folder of a file is its patient, and masked in the catalogue
        Path(uri).name: row["image_id"]
        for row in store.query("SELECT image_id, uris FROM current_images").to_pylist()
        for uri in row["uris"]
    }
    expected = {
        (ids[Path(row["path"]).name], row["category"], *(float(row[edge]) for edge in "xywh"))
        for row in stated
    }
    assert {tuple(row.values()) for row in by_table} == expected

    document = export_annotations(store, Selection(DATASET), "table")
    assert len(document["images"]) == images and len(document["annotations"]) == len(by_table)
    write(tmp_path / "coco.json", json.dumps(document).encode())
    annotated(store, source="coco", coco={"file": str(tmp_path / "coco.json")})
    assert _boxes(store, "coco") == by_table

    described = _described(store, source="table", pictures=False)
    assert described.counts.done == images
    counted = store.query(
        "SELECT label, sum(value)::INT AS n FROM current_profiles WHERE distribution = 'images' "
        "GROUP BY label ORDER BY label"
    )
    catalogued = "SELECT label, count(*)::INT AS n FROM current_images GROUP BY 1 ORDER BY 1"
    assert counted.to_pylist() == store.query(catalogued).to_pylist()
    again = _described(store, source="table", pictures=False)
    assert (again.status, again.counts.up_to_date) == ("up_to_date", images)
    with pytest.raises(SourceError, match=r"Several sources.*got coco, masks, table"):
        _described(store)
    with pytest.raises(SourceError, match=r"No such source.*got reader.*coco, masks, table"):
        _described(store, source="reader")


@pytest.mark.slow
def test_real_ultrasound(shared_data: Path, tmp_path: Path) -> None:
    """Every mask of the set is a box; what it says of its images is profiled and exported."""
    root = shared_data / "us-busi"
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    for label in ("benign", "malignant", "normal"):
        fields = {"path": rf"(?P<label>{label}) .*"}
        catalogue(root / label / "images", store, name=label, fields=fields)
    masks = {"root": str(root), "path": r".*/masks/(?P<image>.+)_mask(?:_\d+)?\.png"}
    report = annotated(store, masks=masks)
    assert (report.counts.done, report.counts.rejected) == (353, 0)
    expected = []
    for path in sorted(root.glob("*/masks/*.png")):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) >= 128
        if mask.any():
            box = cv2.boundingRect(mask.astype(np.uint8))
            expected.append((path.parts[-3], *map(float, box), float(mask.sum())))
    found = store.query("SELECT category, x, y, w, h, area FROM current_annotations")
    assert sorted(tuple(row.values()) for row in found.to_pylist()) == sorted(expected)
    empty = store.query(
        "SELECT DISTINCT label FROM annotated_images JOIN current_images USING (image_id) "
        "WHERE boxes = 0"
    )
    assert empty["label"].to_pylist() == ["normal"]
    assert annotated(store, masks=masks).status == "up_to_date"

    described = _described(store)
    assert described.counts.done == 353
    folder = Path(described.facts["pictures"])
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.csv" for name in ("box_share", "height", "images", "suspects", "width")),
        *(f"{name}.png" for name in ("box_share", "images", "size")),  # the set knows no ages
    }
    shares = store.query(
        "SELECT label, value FROM current_profiles WHERE distribution = 'box_share' "
        "AND statistic = 'median' ORDER BY label"
    ).to_pylist()
    assert [row["label"] for row in shares] == ["benign", "malignant"]
    assert shares[0]["value"] < shares[1]["value"]  # malignant lesions are larger in this set
    document = export_annotations(store, Selection(DATASET), None)
    write(tmp_path / "coco.json", json.dumps(document).encode())
    read = COCO(str(tmp_path / "coco.json"))
    assert (len(read.imgs), len(read.anns)) == (353, len(expected))
    again = annotated(store, source="again", coco={"file": str(tmp_path / "coco.json")})
    assert (again.counts.done, again.counts.rejected) == (353, 0)
    assert _boxes(store, "again") == _boxes(store, "reader")
