"""Rivals that readers share: looked for again as soon as there may be others."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from cluster.lake import rivals as module
from cluster.lake.reader import LakeReader
from cluster.lake.rivals import Rivals
from schemas.errors import QueryError
from tests.cluster.lake.small import SmallLake, at, image


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    return SmallLake(str(tmp_path / "lake"))


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Views whose rivals were looked for."""
    names: list[str] = []
    find = module._find

    def noted(connection: object, view: module.View) -> pa.Table:
        names.append(view.name)
        return find(connection, view)

    monkeypatch.setattr(module, "_find", noted)
    return names


def current(lake: SmallLake, rivals: Rivals) -> list[tuple[str, str]]:
    reader = LakeReader(lake.storage, rivals=rivals)
    found = reader.query("SELECT image_id, run_id FROM current_images ORDER BY ALL")
    return [tuple(row.values()) for row in found.to_pylist()]


def test_rivals_are_looked_for_once_as_long_as_rows_stay(
    lake: SmallLake, looked: list[str]
) -> None:
    rivals = Rivals()
    lake.publish("r1", images=[image("a", "/x"), image("b", "/y")])
    assert current(lake, rivals) == current(lake, rivals) == [("a", "r1"), ("b", "r1")]
    assert looked == ["current_files"]
    lake.publish("r2", quality=[{"dataset": "d", "image_id": "a", "kept": True}])
    assert current(lake, rivals) == [("a", "r1"), ("b", "r1")]
    assert looked == ["current_files"]
    lake.publish("r3", images=[image("c", "/x", seen_at=at(1))])
    assert current(lake, rivals) == [("b", "r1"), ("c", "r3")]
    assert looked == ["current_files"] * 2


def test_a_run_that_becomes_visible_in_a_merged_file_is_a_rival(
    lake: SmallLake, looked: list[str]
) -> None:
    rivals = Rivals()
    lake.publish("r1", images=[image("a", "/x")])
    lake.add("images", "r2", [image("b", "/x", seen_at=at(1))])
    lake.state("r2", "held")
    lake.compact("images")
    assert current(lake, rivals) == [("a", "r1")]
    lake.state("r2", "published")
    assert current(lake, rivals) == [("b", "r2")]
    assert looked == ["current_files"] * 2


def test_the_latest_verdict_of_a_data_set_holds(lake: SmallLake) -> None:
    def verdict(dataset: str, recipe: str, kept: bool) -> dict[str, object]:
        return {"dataset": dataset, "image_id": "a", "recipe": recipe, "kept": kept}

    lake.publish("r1", quality=[verdict("d", "1", False), verdict("e", "1", True)])
    lake.publish(
        "r2", quality=[verdict("d", "2", True), verdict("d", "2", True) | {"image_id": "b"}]
    )
    found = lake.reader().query(
        "SELECT dataset, image_id, recipe, kept FROM current_quality ORDER BY ALL"
    )
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("d", "a", "2", True), ("d", "b", "2", True), ("e", "a", "1", True),
    ]  # fmt: skip


def test_a_file_that_went_is_current_as_gone(lake: SmallLake) -> None:
    lake.publish("r1", images=[image("a", "/x"), image("b", "/y"), image("b", "/y", frame=1)])
    lake.publish("r2", images=[image("a", "/x", seen_at=at(1), state="gone")])
    found = lake.reader().query("SELECT uri, frame, state FROM current_files ORDER BY ALL")
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("/x", 0, "gone"), ("/y", 0, "present"), ("/y", 1, "present"),
    ]  # fmt: skip


class HungryRivals(Rivals):
    """Takes some 100 MB that can't spill, as it may where many images are to be ranked."""

    def put(self, connection: duckdb.DuckDBPyConnection, *rest: Any) -> None:
        connection.execute(
            "SELECT len(list(repeat('x', 1000) || range)) FROM range(100000)"
        ).fetchall()
        super().put(connection, *rest)


@pytest.mark.parametrize("spare", [2000, 63])
def test_batches_get_more_memory_while_views_are_made(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    monkeypatch.setattr("cluster.lake.engine.spare_mb", lambda: spare)
    lake.publish("r1", images=[image("a")])
    reader = LakeReader(lake.storage, memory_mb=16, rivals=HungryRivals())
    sql = "SELECT image_id FROM current_images"
    if spare == 2000:
        with reader.batches(sql) as batches:
            assert batches.read_all()["image_id"].to_pylist() == ["a"]
    else:
        with pytest.raises(QueryError, match="more memory than it may use"), reader.batches(sql):
            pass


@pytest.mark.parametrize("spare", [2000, 63])
def test_batches_get_more_memory_before_the_first(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    monkeypatch.setattr("cluster.lake.engine.spare_mb", lambda: spare)
    reader = LakeReader(lake.storage, memory_mb=16)
    # A list can't spill: it takes some 100 MB.
    sql = "SELECT len(list(repeat('x', 1000) || range)) AS n FROM range(100000)"
    if spare == 2000:
        with reader.batches(sql) as batches:
            assert batches.read_all()["n"].to_pylist() == [100_000]
    else:
        with pytest.raises(QueryError, match="more memory than it may use"), reader.batches(sql):
            pass
