"""Copies of a store's files: fetched once, within a budget, and gone with the lake."""

import gc
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.lake import copies as module
from cluster.lake.copies import Copies
from cluster.lake.leases import Holder
from cluster.lake.store import LakeStore
from cluster.storage import Storage
from tests.cluster.lake.small import SmallLake, image

IDS = "SELECT image_id FROM current_images ORDER BY image_id"


@pytest.fixture
def lake(s3_root: str) -> SmallLake:
    lake = SmallLake(s3_root)
    lake.publish("r1", images=[image("a"), image("b")])
    return lake


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Objects that were copied."""
    paths: list[str] = []
    copy = Storage.copy

    def noted(storage: Storage, path: str, target: Path, size: int) -> None:
        paths.append(path)
        copy(storage, path, target, size)

    monkeypatch.setattr(Storage, "copy", noted)
    return paths


def ids(store: LakeStore) -> list[str]:
    found: list[str] = store.query(IDS)["image_id"].to_pylist()
    return found


@pytest.mark.s3
def test_each_file_is_copied_once(lake: SmallLake, copied: list[str]) -> None:
    store = LakeStore(lake.storage)
    assert ids(store) == ids(store) == ["a", "b"]
    assert len(copied) == 1
    lake.publish("r2", images=[image("c")])
    with store.snapshot():
        assert ids(store) == ["a", "b", "c"]
    assert len(copied) == len(set(copied)) == 2


@pytest.mark.s3
@pytest.mark.parametrize("cause", ["budget", "disk"])
def test_what_does_not_fit_is_read_where_it_lies(
    lake: SmallLake, copied: list[str], monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    if cause == "budget":
        monkeypatch.setattr(module, "MOST_BYTES", 100)
    else:
        monkeypatch.setattr(module, "_OF_FREE", 2**60)
    assert ids(LakeStore(lake.storage)) == ["a", "b"]
    assert copied == []


@pytest.mark.s3
def test_what_can_not_be_copied_is_read_where_it_lies(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Storage, "copy", broken)
    assert ids(LakeStore(lake.storage)) == ["a", "b"]


@pytest.mark.s3
@pytest.mark.parametrize("whole", [10, 2**20])
def test_large_files_of_pixels_are_not_copied(
    lake: SmallLake, copied: list[str], monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    monkeypatch.setattr(module, "_WHOLE_BYTES", whole)
    lake.publish("r2", prepared=[{"image_id": "a", "recipe": "x", "pixels": b"1"}])
    store = LakeStore(lake.storage)
    found = store.query("SELECT image_id, recipe FROM prepared")
    assert found.to_pylist() == [{"image_id": "a", "recipe": "x"}]
    assert len(copied) == (whole > 10)
    assert ids(store) == ["a", "b"]
    assert len(copied) == 1 + (whole > 10)


def prepared(image_id: str, recipe: str, size: int = 1) -> Sequence[dict[str, Any]]:
    return [{"image_id": image_id, "recipe": recipe, "pixels": os.urandom(size)}]


@pytest.mark.s3
@pytest.mark.parametrize("merged", [False, True])
def test_tables_of_large_and_small_files_are_read_whole(lake: SmallLake, *, merged: bool) -> None:
    """A recipe of another size, or a night's few pixels beside those merged before."""
    lake.publish("r2", prepared=prepared("a", "x", 700_000))
    lake.publish("r3", prepared=prepared("c", "x", 700_000))
    lake.compact("prepared")
    lake.publish("r4", prepared=prepared("b", "x" if merged else "y"))
    assert len(lake.reader().files("prepared")) == 2
    found = LakeStore(lake.storage).query("SELECT image_id FROM prepared ORDER BY image_id")
    assert found["image_id"].to_pylist() == ["a", "b", "c"]


@pytest.mark.s3
def test_a_table_that_is_larger_than_the_budget_is_not_copied_in_part(
    lake: SmallLake, copied: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.publish("r2", images=[image("c")])
    lake.compact("images")
    lake.publish("r3", images=[image("d")])
    files = lake.reader().files("images")
    monkeypatch.setattr(module, "MOST_BYTES", sum(one.bytes for one in files) - 1)
    store = LakeStore(lake.storage)
    assert ids(store) == ["a", "b", "c", "d"]
    assert (len(files), copied) == (2, [])


@pytest.mark.s3
def test_copies_go_with_the_lake_and_are_their_users_own(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    copies = Copies(lake.storage)
    (file,) = lake.reader().files("images")
    found = copies.of("images", [file])
    assert found is not None
    path = Path(found[file.path])
    assert (len(found), path.stat().st_size) == (1, file.bytes)
    assert (path.parent.stat().st_mode & 0o077, path.parent.parent) == (0, tmp_path)
    # By this the next driver knows whether this one was killed.
    owner = Holder.of(json.loads((path.parent / "owner.json").read_text()))
    assert owner == Holder.this_process()
    del copies
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_files_on_disk_are_read_where_they_lie(tmp_path: Path, copied: list[str]) -> None:
    lake = SmallLake(str(tmp_path))
    lake.publish("r1", images=[image("a")])
    assert ids(LakeStore(lake.storage)) == ["a"]
    assert copied == []


@pytest.mark.s3
def test_a_copy_is_the_object_part_by_part(
    lake: SmallLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.storage.put("x", bytes(range(35)))
    monkeypatch.setattr("cluster.storage._COPIED_BYTES", 10)
    lake.storage.copy("x", tmp_path / "x", 35)
    assert (tmp_path / "x").read_bytes() == bytes(range(35))
    with pytest.raises(FileNotFoundError):
        lake.storage.copy("y", tmp_path / "y", 35)
