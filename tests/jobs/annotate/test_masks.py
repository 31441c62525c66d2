"""Boxes of masks: whose they are, what changed, what is withdrawn, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.lake.store import LakeStore
from cluster.shards import ShardOutcome, ShardProcess, ShardTask
from schemas.errors import SourceError
from schemas.protocols import Report
from schemas.specs.annotate import AnnotateSpec
from tests.jobs.annotate.archive import (
    annotated,
    boxes,
    catalogue,
    mask,
    picture,
    png,
    rejects,
    write,
)
from tests.jobs.annotate.ultrasound import ultrasound_file

PATTERN = r".*/(?P<image>.+?)_mask(?:_\d+)?\.png"
IMAGES = (
    ("benign", "a (1)", [mask((5, 6, 10, 8)), mask((30, 20, 4, 4))]),
    ("benign", "a (2)", [mask((0, 0, 60, 40))]),
    ("malignant", "b (1)", [mask((2, 3, 5, 5), (40, 30, 6, 2))]),
    ("normal", "n (1)", [mask()]),
)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Four images in three folders, one with two masks, one with an empty one."""
    for number, (label, name, drawn) in enumerate(IMAGES):
        write(tmp_path / "images" / label / f"{name}.png", png(picture(number)))
        for place, one in enumerate(drawn):
            suffix = f"_mask_{place}" if place else "_mask"
            write(tmp_path / "masks" / label / f"{name}{suffix}.png", png(one))
    return tmp_path / "masks"


@pytest.fixture
def store(masks: Path) -> LakeStore:
    lake = LakeStore.open(str(masks.parent / "lake"), create=True)
    catalogue(masks.parent / "images", lake, fields={"path": r"(?P<label>\w+)/.*"})
    return lake


def _box(image: str, category: str, *edges: float, area: float) -> dict[str, Any]:
    x, y, w, h = edges
    found = {"image": image, "category": category, "x": x, "y": y, "w": w, "h": h}
    return found | {"area": area, "iscrowd": False}


BOXES = [
    _box("a (1).png", "benign", 5, 6, 10, 8, area=80),
    _box("a (1).png", "benign", 30, 20, 4, 4, area=16),
    _box("a (2).png", "benign", 0, 0, 60, 40, area=2400),
    _box("b (1).png", "malignant", 2, 3, 44, 29, area=37),
]


def _run(store: LakeStore, masks: Path, **changes: Any) -> Report:
    named = {name: changes.pop(name) for name in ("each", "min_pixels", "path") if name in changes}
    return annotated(store, masks={"root": str(masks), "path": PATTERN} | named, **changes)


def test_each_mask_is_a_box_of_its_image(store: LakeStore, masks: Path) -> None:
    report = _run(store, masks)
    assert (report.status, report.counts.done) == ("published", 4)
    assert report.facts == {"source": "reader", "boxes": 4}
    assert boxes(store) == BOXES
    looked = store.query("SELECT boxes FROM annotated_images ORDER BY boxes")["boxes"].to_pylist()
    assert looked == [0, 1, 1, 2]


def test_each_component_can_be_a_box_and_specks_are_none(store: LakeStore, masks: Path) -> None:
    report = _run(store, masks, each="component", min_pixels=13, category="lesion")
    assert report.facts["boxes"] == 4
    assert boxes(store) == [
        *(box | {"category": "lesion"} for box in BOXES[:3]),
        _box("b (1).png", "lesion", 2, 3, 5, 5, area=25),
    ]


def test_only_what_changed_is_annotated_again(store: LakeStore, masks: Path) -> None:
    first = _run(store, masks)
    again = _run(store, masks, name="again", execution={"workers": 1})
    assert (again.status, again.counts.up_to_date) == ("up_to_date", 4)

    write(masks / "benign" / "a (2)_mask.png", png(mask((1, 2, 3, 4))))
    (masks / "benign" / "a (1)_mask_1.png").unlink()
    changed = _run(store, masks)
    assert (changed.counts.done, changed.counts.up_to_date) == (2, 2)
    moved = _box("a (2).png", "benign", 1, 2, 3, 4, area=12)
    assert boxes(store) == [BOXES[0], moved, BOXES[3]]
    assert store.query("SELECT count(*) AS n FROM annotations")["n"].to_pylist() == [7]
    runs = store.query("SELECT DISTINCT run_id FROM current_annotations ORDER BY 1")
    assert runs["run_id"].to_pylist() == [first.run_id, changed.run_id]

    # Another source says something else of the same images.
    other = _run(store, masks, source="other@2", categories={"benign": "cyst"})
    assert other.counts.done == 4
    assert {box["category"] for box in boxes(store, "other@2")} == {"cyst", "malignant"}
    assert len(boxes(store)) == 3


def test_what_the_source_no_longer_names_is_withdrawn(store: LakeStore, masks: Path) -> None:
    _run(store, masks)
    (masks / "malignant" / "b (1)_mask.png").unlink()
    report = _run(store, masks)
    assert (report.counts.gone, report.counts.up_to_date) == (1, 3)
    assert report.facts["images the source does not name"] == 1
    assert boxes(store) == BOXES[:3]
    assert store.query("SELECT count(*) AS n FROM annotated_images")["n"].to_pylist() == [3]
    assert _run(store, masks).status == "up_to_date"
    # Where the source has looked at all images, one that it does not name has no box.
    complete = _run(store, masks, complete=True)
    assert (complete.counts.done, complete.counts.up_to_date) == (1, 3)
    assert store.query("SELECT count(*) AS n FROM annotated_images")["n"].to_pylist() == [4]


def test_masks_that_do_not_fit_reject_their_image(store: LakeStore, masks: Path) -> None:
    _run(store, masks)
    half = png(mask((4, 6, 10, 8), height=20, width=30))
    write(masks / "benign" / "a (1)_mask.png", half)
    write(masks / "benign" / "a (2)_mask.png", png(mask(height=60, width=40)))
    write(masks / "malignant" / "b (1)_mask.png", b"no picture")
    write(masks / "normal" / "who_mask.png", png(mask()))
    report = _run(store, masks)
    assert (report.counts.done, report.counts.rejected, report.counts.up_to_date) == (1, 3, 1)
    # Resized with nearest neighbours, the smaller copy gives the box twice as large.
    assert boxes(store) == [_box("a (1).png", "benign", 8, 12, 20, 16, area=320), BOXES[1]]
    assert rejects(store) == [
        ("size_mismatch", "its mask is 40 x 60, the image 60 x 40"),
        ("unknown_format", "its mask 1: none of png, jpeg, tiff, bmp, webp, npz, dicom"),
        ("unknown_image", "the data set has no such image"),
    ]
    # Rejects stand until the mask changes.
    again = _run(store, masks)
    assert (again.status, again.counts.up_to_date) == ("up_to_date", 5)
    assert _run(store, masks, retry_rejects=True).counts.rejected == 3
    write(masks / "malignant" / "b (1)_mask.png", png(mask((2, 3, 5, 5))))
    assert _run(store, masks).counts.done == 1


@pytest.fixture
def twins(tmp_path: Path) -> LakeStore:
    """Two images that bear one name, and a third of its own."""
    for number, name in enumerate(("left/1.png", "right/1.png", "right/2.png")):
        write(tmp_path / "images" / name, png(picture(number)))
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    catalogue(tmp_path / "images", store, fields=None)
    return store


def _looked_at(store: LakeStore) -> list[str]:
    uris = store.query("SELECT uri FROM annotated_images JOIN current_images USING (image_id)")
    return sorted("/".join(Path(uri).parts[-2:]) for uri in uris["uri"].to_pylist())


def test_images_of_one_name_are_told_apart_by_their_folders(
    twins: LakeStore, tmp_path: Path
) -> None:
    write(tmp_path / "masks" / "left" / "1_mask.png", png(mask((1, 1, 2, 2))))
    report = _run(twins, tmp_path / "masks", category="lesion")
    assert (report.counts.done, report.counts.rejected) == (1, 0)
    assert _looked_at(twins) == ["left/1.png"]


@pytest.mark.parametrize("complete", [False, True])
def test_a_mask_that_may_be_of_several_images_rejects_them_all(
    twins: LakeStore, tmp_path: Path, complete: bool
) -> None:
    """Whichever it is of would be annotated without its box."""
    for folder in ("left", "middle"):
        write(tmp_path / "masks" / folder / "1_mask.png", png(mask((1, 1, 2, 2))))
    report = _run(twins, tmp_path / "masks", category="lesion", complete=complete)
    assert (report.counts.done, report.counts.rejected) == (int(complete), 3)
    assert _looked_at(twins) == (["right/2.png"] if complete else [])
    told = "2 images of the data set bear its name"
    assert rejects(twins) == [
        ("ambiguous_image", told),  # the mask itself
        ("ambiguous_image", f"a mask: {told}"),
        ("ambiguous_image", f"a mask: {told}"),
    ]
    again = _run(twins, tmp_path / "masks", category="lesion", complete=complete)
    assert (again.status, again.counts.up_to_date) == ("up_to_date", 3 + complete)
    (tmp_path / "masks" / "middle" / "1_mask.png").unlink()
    cleared = _run(twins, tmp_path / "masks", category="lesion", complete=complete)
    assert cleared.counts.done == 1 + complete
    assert "left/1.png" in _looked_at(twins)


@pytest.mark.parametrize("frame", ["f1", "9"])
def test_a_mask_of_no_frame_rejects_the_whole_file(tmp_path: Path, frame: str) -> None:
    """It never becomes a mask of all frames."""
    write(tmp_path / "images" / "clip.dcm", ultrasound_file([], frames=3))
    write(tmp_path / "masks" / "clip_0.png", png(mask((1, 1, 2, 2))))
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    catalogue(tmp_path / "images", store, fields=None)
    path = r"(?P<image>clip)_(?P<frame>\w+)\.png"
    assert _run(store, tmp_path / "masks", path=path, category="lesion").counts.done == 1
    write(tmp_path / "masks" / f"clip_{frame}.png", png(mask((5, 5, 2, 2))))
    report = _run(store, tmp_path / "masks", path=path, category="lesion")
    assert (report.counts.done, report.counts.rejected) == (0, 3 if frame == "f1" else 4)
    assert boxes(store) == []
    assert {reason for reason, _ in rejects(store)} == {
        "malformed_annotation" if frame == "f1" else "unknown_image"
    }


def test_labels_of_16_bits_are_boxes(store: LakeStore, masks: Path) -> None:
    labels = mask((5, 6, 10, 8)).astype(np.uint16) // 255 + mask((30, 20, 4, 4)) // 255 * 2
    assert (labels.dtype, labels.max()) == (np.uint16, 2)
    write(masks / "normal" / "n (1)_mask.png", png(labels))
    _run(store, masks, each="component")
    found = [box for box in boxes(store) if box["image"] == "n (1).png"]
    assert [(box["x"], box["y"], box["w"], box["h"]) for box in found] == [
        (5, 6, 10, 8),
        (30, 20, 4, 4),
    ]


def test_masks_beside_their_images_are_masks_though_the_catalogue_has_them(tmp_path: Path) -> None:
    write(tmp_path / "all" / "1.png", png(picture(1)))
    write(tmp_path / "all" / "1_mask.png", png(mask((1, 1, 2, 2))))
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    catalogue(tmp_path / "all", store, fields=None)
    path = r"(?P<image>.+)_mask\.png"
    report = _run(store, tmp_path / "all", category="lesion", path=path, complete=True)
    assert report.counts.to_dict()["input"] == report.counts.done == 1
    assert report.facts["masks that are catalogued as images"] == 1


def test_copies_of_a_file_are_one_image(tmp_path: Path) -> None:
    for name in ("1", "2"):
        write(tmp_path / "images" / f"{name}.png", png(picture(1)))
        write(tmp_path / "masks" / f"{name}_mask.png", png(mask((1, 1, 2, 2))))
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    catalogue(tmp_path / "images", store, fields=None)
    report = _run(store, tmp_path, category="lesion")
    assert (report.counts.done, report.facts["boxes"]) == (1, 1)


def test_identifiers_in_names_stay_masked(tmp_path: Path) -> None:
    write(tmp_path / "images" / "case-88471177" / "7.png", png(picture(1)))
    write(tmp_path / "masks" / "case-88471177" / "7_mask.png", png(mask((1, 1, 2, 2))))
    write(tmp_path / "masks" / "case-88471266" / "8_mask.png", png(mask((1, 1, 2, 2))))
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    fields = {"path": r"case-(?P<patient>\d+)/.*"}
    catalogue(tmp_path / "images", store, fields=fields)
    report = _run(store, tmp_path / "masks", category="lesion")
    assert (report.counts.done, report.counts.rejected) == (1, 1)
    (uri,) = store.query("SELECT uri FROM rejects")["uri"].to_pylist()
    assert "88471266" not in uri and uri.startswith("~id-")
    for path in Path(store.root).rglob("*"):
        assert not path.is_file() or b"88471177" not in path.read_bytes(), path
    plans = list(Path(store.root).glob("_runs/*/plan.parquet"))
    assert plans and all(b"88471266" not in path.read_bytes() for path in plans)


def test_a_pattern_that_matches_nothing_is_an_error(store: LakeStore, masks: Path) -> None:
    with pytest.raises(SourceError, match="No file matches the pattern of masks"):
        _run(store, masks, path=r"(?P<image>.+)_seg\.png")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"masks": None}, "one of masks, csv, coco and dicom; got none"),
        ({"dicom": {}}, "got masks and dicom"),
        ({"path": "(.+)_mask.png"}, "needs the named group image"),
        ({"path": "(?P<image>.+)(?P<who>.)"}, "got image, who"),
        ({"path": "(?P<image>.+"}, "is no regular expression"),
        ({"source": "a b"}, "source"),
        ({"category": "cyst", "allowed": ["lesion"]}, "cyst is not among allowed"),
    ],
)
def test_specs_that_make_no_sense_are_refused(changes: Any, said: str) -> None:
    masks = {"root": "masks", "path": changes.pop("path", PATTERN)}
    with pytest.raises(ValueError, match=said):
        AnnotateSpec.model_validate({"dataset": "busi", "masks": masks} | changes)


def test_an_interrupted_run_goes_on(
    store: LakeStore, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    whole = ShardProcess.run

    def dies(self: ShardProcess, task: ShardTask) -> ShardOutcome:
        if len(computed) == 2:
            raise RuntimeError("the driver died")
        computed.append(task.shard)
        return whole(self, task)

    monkeypatch.setattr(ShardProcess, "run", dies)
    with pytest.raises(RuntimeError, match="driver died"):
        _run(store, masks, execution={"shard_images": 1})
    assert boxes(store) == []
    monkeypatch.setattr(ShardProcess, "run", whole)
    report = _run(store, masks)
    assert (report.resumed, report.counts.done) == (True, 4)
    assert boxes(store) == BOXES
    assert store.query("SELECT count(*) AS n FROM annotations")["n"].to_pylist() == [5]
