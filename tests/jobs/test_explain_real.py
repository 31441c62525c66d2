"""Explaining real images: breast ultrasound with its masks, and chest CT without any."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.fetch import Fetcher
from cluster.lake.store import LakeStore
from cluster.sources import local_etag
from jobs.explain.masks import find_masks
from schemas.bundle import parse_config
from tests.jobs.seeding import image, image_id, seed
from tests.workers.explain.small import small_bundle
from workers.explain import explaining


def _explained(rows: list[dict[str, Any]], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    bundle = small_bundle(classes, size=96)
    params = {
        "model_id": parse_config(bundle["config.json"]).model_id,
        "method": "gradcam",
        "opacity": 0.4,
        "region_source": "masks",
        "folder": "reports",
    }
    told = {"frame": 0, "settings": "s", "boxes": []}
    table = pa.Table.from_pylist([told | row for row in rows])
    fetcher = Fetcher()
    result = explaining.load(params, bundle, fetcher.fetch_files)(table, fetcher.fetch(table))
    assert (result.done, len(result.files)) == (len(rows), len(rows))
    found: list[dict[str, Any]] = result.tables["explanations"].to_pylist()
    return found


def test_masks_of_breast_lesions_are_found_and_pointed_at(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "us-busi"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there")
    files = sorted(folder.glob("*/images/*.png"))
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    images = [
        image(n, file.parent.parent.name, uri=str(file), etag=local_etag(file.stat()))
        for n, file in enumerate(files)
    ]
    seed(store, {"images": images})
    masks = find_masks(str(folder), "chests", store)
    assert len(masks) == len(files)
    several = 0
    for n, file in enumerate(files):
        expected = sorted((file.parent.parent / "masks").glob(f"{file.stem}_mask*.png"))
        assert [one["uri"] for one in masks[image_id(n)]] == [str(one) for one in expected]
        several += len(expected) > 1
    assert several > 5
    chosen = [n for n, one in enumerate(images) if one["label"] != "normal"][::60]
    chosen.append(next(n for n, one in enumerate(images) if one["label"] == "normal"))
    rows = [
        images[n]
        | {
            "actual": images[n]["label"],
            "target": "malignant",
            "masks": masks[image_id(n)],
            "overlay": f"{n}.jpg",
        }
        for n in chosen
    ]
    *lesions, normal = _explained(rows, ("benign", "malignant", "normal"))
    assert all(0 < row["region_share"] < 0.6 for row in lesions)
    assert normal["region_share"] is None  # its mask is empty


def test_chest_ct_is_explained_without_regions(shared_data: Path) -> None:
    folder = shared_data / "ct-iqothnccd"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there")
    files = [sorted((folder / name).glob("*.jpg"))[0] for name in ("benign", "malignant", "normal")]
    rows = [
        {
            "image_id": image_id(n),
            "uri": str(file),
            "etag": local_etag(file.stat()),
            "actual": file.parent.name,
            "target": file.parent.name,
            "masks": [],
            "overlay": f"{n}.jpg",
        }
        for n, file in enumerate(files)
    ]
    found = _explained(rows, ("benign", "malignant", "normal"))
    assert {row["region_source"] for row in found} == {None}
    hot = [row for row in found if row["peak_x"] is not None]
    assert hot and all(0 <= row["peak_x"] < 1024 and row["energy_padding"] < 0.5 for row in hot)
