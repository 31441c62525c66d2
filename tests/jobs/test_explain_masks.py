"""Matching masks to images by name: suffixes, numbers, folders, pseudonyms, doubts."""

from pathlib import Path

import pytest

from cluster.lake.store import LakeStore
from jobs.explain.masks import find_masks
from schemas.errors import SourceError
from tests.jobs.seeding import image, image_id, seed
from workers.pseudonyms import MARK, Pseudonymizer


def _lake(folder: Path, *uris: str) -> LakeStore:
    store = LakeStore.open(str(folder / "lake"), create=True)
    seed(store, {"images": [image(n, "ill", uri=uri) for n, uri in enumerate(uris)]})
    return store


def _write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def _found(store: LakeStore, folder: Path) -> dict[str, list[str]]:
    masks = find_masks(str(folder), "chests", store)
    return {
        one: [str(Path(mask["uri"]).relative_to(folder)) for mask in of_image]
        for one, of_image in masks.items()
    }


def test_names_of_masks_lead_to_images(tmp_path: Path) -> None:
    store = _lake(
        tmp_path,
        "/a/x (1).png",
        "/a/scan_1.jpg",
        "/a/scan_1_2.jpg",
        "/a/plain.dcm",
        "/a/CHNCXR_0001_0.png",
    )
    masks = _write(
        tmp_path / "masks",
        "x (1)_mask.png", "x (1)_mask_1.png", "x (2)_mask.png",
        "scan_1.png", "scan_1_2.png", "scan_1_2_0.png", "scan_1-seg.png",
        "plain_segmentation.PNG", "CHNCXR_0001_0_mask.png", "plain.csv", "plain.txt",
    )  # fmt: skip
    assert _found(store, masks) == {
        image_id(0): ["x (1)_mask.png", "x (1)_mask_1.png"],
        image_id(1): ["scan_1-seg.png", "scan_1.png"],
        image_id(2): ["scan_1_2.png", "scan_1_2_0.png"],
        image_id(3): ["plain_segmentation.PNG"],
        image_id(4): ["CHNCXR_0001_0_mask.png"],
    }


def test_folders_decide_between_equal_names(tmp_path: Path) -> None:
    store = _lake(tmp_path, "/a/us/ill/images/1.png", "/a/us/well/images/1.png", "/a/us/ill/2.png")
    masks = _write(tmp_path / "m", "ill/masks/1_mask.png", "well/masks/1_mask.png", "2_mask.png")
    assert _found(store, masks) == {
        image_id(0): ["ill/masks/1_mask.png"],
        image_id(1): ["well/masks/1_mask.png"],
        image_id(2): ["2_mask.png"],
    }
    flat = _write(tmp_path / "flat", "1_mask.png", "2_mask.png")
    with pytest.raises(SourceError, match="may belong to several images.*got 1 mask"):
        find_masks(str(flat), "chests", store)


def test_a_whole_name_counts_before_one_without_its_ending(tmp_path: Path) -> None:
    """As in `annotate`: one rule finds the images of masks."""
    store = _lake(tmp_path, "/a/IM0001", "/a/IM0001.dcm", "/a/b.c.png", "/a/b.png")
    masks = _write(tmp_path / "m", "IM0001_mask.png", "IM0001.dcm_mask.png", "b.c_mask.png")
    assert _found(store, masks) == {
        image_id(0): ["IM0001_mask.png"],
        image_id(1): ["IM0001.dcm_mask.png"],
        image_id(2): ["b.c_mask.png"],
    }


def test_images_beside_their_masks_are_no_masks_and_copies_share_them(tmp_path: Path) -> None:
    folder = _write(tmp_path / "all", "a/1.png", "b/1.png", "a/1_mask.png", "a/notes.txt")
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    same = [image(0, "ill", uri=str(folder / name)) for name in ("a/1.png", "b/1.png")]
    seed(store, {"images": same})
    assert _found(store, folder) == {image_id(0): ["a/1_mask.png"]}
    frames = [
        image(n, "ill", uri="/c/cine.dcm", frame=n, image_id=f"{image_id(9)}.{n}") for n in (0, 1)
    ]
    seed(store, {"images": frames})
    masks = _write(tmp_path / "cine", "cine_mask.png")
    assert _found(store, masks) == {f"{image_id(9)}.{n}": ["cine_mask.png"] for n in (0, 1)}


def test_identifiers_stay_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYWARD_KEY_FILE", str(tmp_path / "key"))
    pseudonymizer = Pseudonymizer.from_key_file(create=True)
    masks = _write(tmp_path / "masks", "Miller42/scan_Miller42_1_mask.png")
    uri = pseudonymizer.mask("/archive/Miller42/scan_Miller42_1.png", ["Miller42"])
    assert MARK in uri and "Miller42" not in uri
    store = _lake(tmp_path, uri)
    ((mask,),) = find_masks(str(masks), "chests", store).values()
    assert "Miller42" not in mask["uri"]
    revealed = pseudonymizer.reveal(mask["uri"])
    assert revealed == str(masks / "Miller42/scan_Miller42_1_mask.png")


def test_a_folder_without_any_match_is_named(tmp_path: Path) -> None:
    store = _lake(tmp_path, "/a/1.png")
    masks = _write(tmp_path / "masks", "7_mask.png")
    with pytest.raises(SourceError, match=r"No mask.*got 1 images.*NAME_mask"):
        find_masks(str(masks), "chests", store)
    with pytest.raises(SourceError, match="does not exist"):
        find_masks(str(tmp_path / "nowhere"), "chests", store)
