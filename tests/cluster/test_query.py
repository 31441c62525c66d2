"""What there is to query, and exports for tools that read directories."""

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.reader import LakeReader
from cluster.lake.views import VIEWS
from cluster.query import LakeQuery, open_query
from schemas.errors import LakeError, QueryError, UsageError
from schemas.tables import TABLES
from tests.cluster.lake.small import SmallLake, at, image, prediction


@pytest.fixture
def lake(any_root: str) -> SmallLake:
    lake = SmallLake(any_root)
    lake.add(
        "images",
        "r1",
        [image("a", width=7), image("b", label="x"), image("b", "/other", label="y")],
    )
    lake.state("r1", "published", at(10))
    lake.add(
        "quality",
        "r2",
        [
            {"dataset": "d", "image_id": "a", "kept": True},
            {"dataset": "d", "image_id": "b", "kept": False},
        ],
    )
    lake.add("predictions", "r2", [prediction("a", "m1", 0.5), prediction("b", "m2", 0.5)])
    lake.state("r2", "published", at(20))
    lake.add("images", "r3", [image("held")])
    lake.state("r3", "held", at(30))
    return lake


def test_a_lake_answers(lake: SmallLake) -> None:
    found = open_query(lake.root).query(
        "SELECT image_id FROM kept_images WHERE width = $w", {"w": 7}
    )
    assert found["image_id"].to_pylist() == ["a"]
    assert open_query(lake.root, at(15)).query("FROM kept_images").num_rows == 0


def test_where_there_is_no_lake_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"There is no lake \(.*nowhere\)"):
        open_query(str(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


def test_a_lake_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lake.json").write_text('{"format": 99}')
    with pytest.raises(LakeError, match="version 99"):
        open_query(str(tmp_path))


def test_tables_and_views_are_listed_with_published_rows(lake: SmallLake) -> None:
    found = {one.name: one for one in open_query(lake.root).tables()}
    assert list(found) == [*TABLES, *VIEWS]
    rows = {name: one.rows for name, one in found.items() if one.rows}
    assert rows == {
        "images": 3,
        "quality": 2,
        "predictions": 2,
        "runs": 3,
        "current_files": 3,
        "current_images": 2,
        "current_quality": 2,
        "kept_images": 1,
    }
    assert (found["images"].kind, found["kept_images"].kind) == ("table", "view")
    assert found["quality"].description == "what cleaning found about an image"
    columns = {one.name: one for one in found["images"].columns}
    assert asdict(columns["width"]) == {
        "name": "width",
        "type": "int32",
        "unit": "px",
        "description": "width as shown upright",
    }
    assert all(column.description for one in found.values() for column in one.columns)
    assert found["runs"].rows == 3


def test_columns_are_told_without_counting(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_query(lake.root)
    whole = {one.name: one.columns for one in reader.tables()}
    monkeypatch.setattr(reader.reader, "count", None)
    assert reader.columns("kept_images") == whole["kept_images"]
    assert reader.columns("runs") == whole["runs"]
    with pytest.raises(UsageError, match=r"did you mean images\?.*got image\. There are: images"):
        reader.columns("image")


def test_an_export_holds_what_a_query_sees(lake: SmallLake, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "snapshot"
    written = open_query(lake.root).export(target)
    assert list(written) == [*TABLES, *VIEWS]
    assert (written["images"], written["kept_images"], written["metrics"]) == (3, 1, 0)
    assert sorted(one.name for one in target.iterdir()) == sorted(written)
    for name in written:
        (path,) = (target / name).iterdir()
        table = pq.ParquetFile(path).read()
        expected = (TABLES.get(name) or VIEWS[name]).schema
        assert table.schema.names == expected.names
        assert [one.metadata for one in table.schema] == [one.metadata for one in expected]
        # Parquet calls the items of a list "element".
        found_types = [str(one).replace("element", "item") for one in table.schema.types]
        assert found_types == [str(one).replace("element", "item") for one in expected.types]
        assert table.num_rows == written[name]
    images = pq.ParquetFile(target / "images" / "images.parquet").read()
    assert sorted(images["image_id"].to_pylist()) == ["a", "b", "b"]
    # Partition columns are columns like any other in an export.
    predictions = pq.ParquetFile(target / "predictions" / "predictions.parquet").read()
    assert sorted(predictions["model_id"].to_pylist()) == ["m1", "m2"]
    assert [one.name for one in target.parent.iterdir()] == ["snapshot"]


def test_an_export_of_some_as_of_then(lake: SmallLake, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    names = ("images", "quality")
    written = open_query(lake.root, at(15)).export(tmp_path / "empty", names)
    assert written == {"images": 3, "quality": 0}
    assert sorted(one.name for one in (tmp_path / "empty").iterdir()) == ["images", "quality"]


def test_an_export_needs_room_of_its_own(lake: SmallLake, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(UsageError, match=f"new or empty directory: got .*{name}"):
            open_query(lake.root).export(tmp_path / name, ["images"])
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    with pytest.raises(
        UsageError, match=r"no such table or view: got picture\. It has images, ann"
    ):
        open_query(lake.root).export(tmp_path / "new", ["images", "picture"])
    assert not (tmp_path / "new").exists()


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    lake = SmallLake(str(tmp_path / "lake"))
    lake.publish("r1", images=[image("a")])
    (data,) = (tmp_path / "lake" / "tables" / "images").glob("*.parquet")
    data.unlink()
    with pytest.raises(QueryError):
        open_query(lake.root).export(tmp_path / "out" / "snapshot", ["rejects", "images"])
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_is_cut_into_row_groups(tmp_path: Path) -> None:
    lake = SmallLake(str(tmp_path / "lake"))
    count = 250_000
    lake.publish("r1", embeddings=[{"image_id": "a", "model_id": "m", "vector": [1.0]}])
    rows = pa.table({"n": range(count)})
    lake.publish("r2", splits=[{"image_id": str(n)} for n in rows["n"].to_pylist()])
    query = LakeQuery(LakeReader(lake.storage))
    assert query.export(tmp_path / "out", ["splits", "embeddings"])["splits"] == count
    data = pq.ParquetFile(tmp_path / "out" / "splits" / "splits.parquet").metadata
    groups = [data.row_group(number).num_rows for number in range(data.num_row_groups)]
    assert sum(groups) == count
    assert len(groups) == 3
    assert max(groups) <= 122_880
