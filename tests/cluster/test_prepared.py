"""Prepared pixels: found by planning, read in place of sources, equal to what was prepared."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ray import cloudpickle

from cluster.fetch import Fetcher
from cluster.lake.store import LakeStore
from cluster.shards import decode_rows, encode_rows
from jobs.prepared import by_file, where_prepared
from schemas.plan import PreparedPixels
from tests.jobs.seeding import seed
from workers.pixels.encoding import decode, encode
from workers.pixels.steps import Recipe
from workers.reading import Preparer

RECIPE = Recipe(size=8)


def _pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)


def _prepared(numbers: range, recipe: str = RECIPE.hash) -> list[dict[str, object]]:
    return [
        {
            "image_id": f"{number:032x}",
            "recipe": recipe,
            "height": 8,
            "width": 8,
            "pixels": encode(_pixels(number)),
            "geometry": "{}",
        }
        for number in numbers
    ]


def _rows(numbers: list[int], folder: Path) -> pa.Table:
    """Rows of a plan, with sources that hold something else."""
    for number in numbers:
        (folder / f"{number}.png").write_bytes(b"source")
    paths = [folder / f"{number}.png" for number in numbers]
    return pa.table(
        {
            "image_id": [f"{number:032x}" for number in numbers],
            "uri": [str(path) for path in paths],
            "frame": pa.array([0] * len(numbers), pa.int32()),
            "etag": [f"{path.stat().st_mtime_ns:x}-6" for path in paths],
            "bytes": pa.array([6] * len(numbers), pa.int64()),
        }
    )


@pytest.fixture
def store(any_root: str) -> LakeStore:
    lake = LakeStore.open(any_root, create=True)
    seed(lake, {"prepared": _prepared(range(50))})
    seed(lake, {"prepared": _prepared(range(50, 60))})
    seed(lake, {"prepared": _prepared(range(70, 80), recipe="another")})
    return lake


def test_planning_finds_the_file_of_each_prepared_image(store: LakeStore, tmp_path: Path) -> None:
    found = where_prepared(_rows([3, 55, 70, 99], tmp_path), RECIPE.hash, store)
    files = found["prepared"].to_pylist()
    assert [file is None for file in files] == [False, False, True, True]
    assert files[0] != files[1]
    assert all(file.startswith(f"tables/prepared/recipe={RECIPE.hash}/") for file in files[:2])
    # What is read in place of a source has another size; the others keep theirs.
    assert found["bytes"].to_pylist()[2:] == [6, 6]
    assert found["bytes"].to_pylist()[0] > 6


def test_rows_of_one_file_follow_each_other(store: LakeStore, tmp_path: Path) -> None:
    rows = where_prepared(_rows([99, 55, 3, 98, 54, 2], tmp_path), RECIPE.hash, store)
    ordered = [int(one, 16) for one in by_file(rows)["image_id"].to_pylist()]
    assert ordered[4:] == [99, 98]
    assert {tuple(ordered[:2]), tuple(ordered[2:4])} == {(54, 55), (2, 3)}


def test_pixels_are_read_in_place_of_sources(store: LakeStore, tmp_path: Path) -> None:
    numbers = [40, 3, 99, 55, 41]
    planned = where_prepared(_rows(numbers, tmp_path), RECIPE.hash, store)
    travelled = decode_rows(encode_rows(planned.slice(0, 5)))
    blobs = Fetcher(store.root).fetch(travelled, without=frozenset({4}))
    assert blobs[2] == b"source"
    assert not isinstance(blobs[4], PreparedPixels)
    for row in (0, 1, 3):
        blob = blobs[row]
        assert isinstance(blob, PreparedPixels)
        assert (decode(blob.data, blob.height, blob.width) == _pixels(numbers[row])).all()
        image = Preparer(RECIPE.to_dict()).prepare(blob, 0)
        assert isinstance(image, np.ndarray)
        assert (image == _pixels(numbers[row])[None]).all()


def test_a_file_that_is_gone_sends_the_reader_to_the_source(
    store: LakeStore, tmp_path: Path
) -> None:
    planned = where_prepared(_rows([3], tmp_path), RECIPE.hash, store)
    store.storage.delete(planned["prepared"][0].as_py())
    assert Fetcher(store.root).fetch(planned) == [b"source"]


def test_a_slice_travels_without_the_names_of_other_files() -> None:
    names = pa.array([f"file-{number:04d}" for number in range(1000)])
    codes = pa.array(range(1000), pa.int32())
    rows = pa.table({"prepared": pa.DictionaryArray.from_arrays(codes, names)})
    data = encode_rows(rows.slice(7, 1))
    assert decode_rows(data)["prepared"].to_pylist() == ["file-0007"]
    assert b"file-0008" not in data


def test_an_empty_lake_has_nothing_prepared(any_root: str, tmp_path: Path) -> None:
    lake = LakeStore.open(any_root, create=True)
    assert where_prepared(_rows([1], tmp_path), RECIPE.hash, lake)["prepared"].to_pylist() == [None]


def test_a_fetcher_travels_to_the_workers_of_a_training(store: LakeStore, tmp_path: Path) -> None:
    planned = where_prepared(_rows([3], tmp_path), RECIPE.hash, store)
    fetch = cloudpickle.loads(cloudpickle.dumps(Fetcher(store.root).fetch))
    assert isinstance(fetch(planned)[0], PreparedPixels)
