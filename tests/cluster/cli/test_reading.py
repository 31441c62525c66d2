"""`query`, `tables`, `export`, `models`: reading a lake from the command line."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.cli.formats import write_rows
from schemas.errors import QueryError, UsageError
from tests.cluster.cli.conftest import Call

ROWS = pa.table(
    {
        "image_id": ["a", "b", None],
        "n": pa.array([1, 2000, None], pa.int64()),
        "score": pa.array([0.25, float("nan"), 1e-7], pa.float32()),
        "scores": pa.array([[0.25, 0.75], [], None], pa.list_(pa.float32())),
        "seen_at": pa.array([datetime(2026, 11, 21, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC")),
        "pixels": pa.array([b"\x00\x01", b"", None], pa.binary()),
        "label": ['x,"y"', "über\x1b[31m", "plain"],
    }
)


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    unit: str
    description: str


@dataclass(frozen=True)
class Described:
    name: str
    kind: str
    description: str
    rows: int
    columns: tuple[Column, ...]


@dataclass
class FakeReader:
    """Stands in for the reader of a lake."""

    rows: pa.Table = field(default_factory=lambda: ROWS)
    asked: list[object] = field(default_factory=list)

    def open_query(self, root: str, as_of: datetime | None = None) -> "FakeReader":
        self.asked.append((root, as_of))
        return self

    def query(self, sql: str) -> pa.Table:
        self.asked.append(sql)
        if "nowhere" in sql:
            raise QueryError("The lake has no such name", got="nowhere", remedy="it has images")
        return self.rows

    def tables(self) -> list[Described]:
        width = Column("width", "int32", "px", "width as shown upright")
        return [
            Described("images", "table", "what ingest saw", 5840, (width,)),
            Described("kept_images", "view", "an image", 5000, ()),
        ]

    def columns(self, name: str) -> tuple[Column, ...]:
        return {one.name: one for one in self.tables()}[name].columns

    def export(self, directory: Path, names: Sequence[str]) -> Mapping[str, int]:
        self.asked.append((directory, tuple(names)))
        return {"images": 5840}


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> FakeReader:
    fake = FakeReader()
    module = ModuleType("cluster.query")
    module.open_query = fake.open_query  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cluster.query", module)
    return fake


def test_a_query_is_shown_as_a_table(call: Call, reader: FakeReader) -> None:
    ended = call("query", "SELECT 1")
    assert ended.code == 0
    header, _, first, second, *_ = (line.strip() for line in ended.out.splitlines() if line.strip())
    assert header.split() == ["image_id", "n", "score", "scores", "seen_at", "pixels", "label"]
    assert first.split()[:3] == ["a", "1", "0.25"]
    assert "2 bytes" in first
    # What archives hold can't steer the terminal.
    assert "\x1b" not in ended.out
    assert second.endswith("über\\x1b[31m")


def test_a_query_as_csv(call: Call, reader: FakeReader) -> None:
    rows = list(csv.DictReader(io.StringIO(call("query", "SELECT 1", "--format", "csv").out)))
    assert [row["image_id"] for row in rows] == ["a", "b", ""]
    assert rows[0]["label"] == 'x,"y"'
    assert json.loads(rows[0]["scores"]) == [0.25, 0.75]
    assert rows[0]["pixels"] == "AAE="
    assert rows[2]["scores"] == ""


def test_a_query_as_json(call: Call, reader: FakeReader) -> None:
    rows = json.loads(call("query", "SELECT 1", "-f", "json").out)
    assert rows[0] == {
        "image_id": "a",
        "n": 1,
        "score": 0.25,
        "scores": [0.25, 0.75],
        "seen_at": "2026-11-21T00:00:00+00:00",
        "pixels": "AAE=",
        "label": 'x,"y"',
    }
    assert rows[1]["score"] is None
    assert rows[2]["image_id"] is None


def test_no_rows_are_valid_json(call: Call, reader: FakeReader) -> None:
    reader.rows = ROWS.slice(0, 0)
    assert json.loads(call("query", "SELECT 1", "-f", "json").out) == []


@pytest.mark.parametrize("form", [("--format", "parquet"), ()])
def test_a_query_as_parquet_to_a_file(
    call: Call, reader: FakeReader, tmp_path: Path, form: tuple[str, ...]
) -> None:
    ended = call("query", "SELECT 1", "--output", "out.parquet", *form)
    assert (ended.code, ended.out) == (0, "")
    assert "3 rows in out.parquet" in ended.err
    assert pq.read_table(tmp_path / "out.parquet").drop(["score"]).equals(ROWS.drop(["score"]))
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_parquet_on_stdout_is_parquet(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_rows(ROWS, "parquet", None)
    assert pq.read_table(io.BytesIO(capfdbinary.readouterr().out)).num_rows == 3


def test_parquet_does_not_go_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(UsageError, match="--output"):
        write_rows(ROWS, "parquet", None)


@pytest.mark.parametrize(
    ("name", "begins"),
    [("out.csv", '"image_id","n"'), ("out.json", '[\n{"image_id"'), ("out.txt", "image_id ")],
)
def test_a_file_name_says_the_format(
    call: Call, reader: FakeReader, tmp_path: Path, name: str, begins: str
) -> None:
    call("query", "SELECT 1", "--output", name)
    assert (tmp_path / name).read_text().strip().startswith(begins)


def test_sql_from_stdin(call: Call, reader: FakeReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 2"))
    call("query", "-")
    assert "SELECT 2" in reader.asked


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("query", "FROM nowhere"), 1, "no such name: got nowhere. It has images."),
        (("query", "SELECT 1", "--format", "xml"), 2, "table, csv, json, parquet"),
        (("query", "SELECT 1", "--as-of", "yesterday"), 2, "2026-11-20T08:00"),
        (("query", "SELECT 1", "-o", "no/such/folder.csv"), 2, "can't be written"),
        (("query", "SELECT 1", "--lake", "s3://key:hidden@b"), 2, "s3://***@b"),
    ],
)
def test_what_goes_wrong_is_told(
    call: Call, reader: FakeReader, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = call(*arguments)
    assert ended.code == code
    assert said in ended.err
    assert "hidden" not in ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:00", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("2026-11-20T08:00+01:00", datetime(2026, 11, 20, 7, tzinfo=UTC)),
        ("2026-11-20T08:00Z", datetime(2026, 11, 20, 8, tzinfo=UTC)),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(
    call: Call, reader: FakeReader, text: str, moment: datetime
) -> None:
    call("query", "SELECT 1", "--as-of", text)
    assert reader.asked[0] == ("./lake", moment)


def test_the_lake_is_the_option_or_the_environment(
    call: Call, reader: FakeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("tables")
    monkeypatch.setenv("LAKE", "from-lake")
    call("tables")
    monkeypatch.setenv("RAYWARD_LAKE", "from-rayward-lake")
    call("tables")
    call("tables", "--lake", "from-option")
    roots = [asked[0] for asked in reader.asked if isinstance(asked, tuple)]
    assert roots == ["./lake", "from-lake", "from-rayward-lake", "from-option"]


def test_tables_and_columns_are_listed(call: Call, reader: FakeReader) -> None:
    listed = call("tables").out
    assert "5,840" in listed
    assert "kept_images" in listed
    columns = call("tables", "images").out.split()
    assert columns[:4] == ["column", "type", "unit", "meaning"]
    assert columns[-7:] == ["width", "int32", "px", "width", "as", "shown", "upright"]
    objects = [json.loads(line) for line in call("tables", "--json").out.splitlines()]
    assert [one["name"] for one in objects] == ["images", "kept_images"]
    (column,) = (json.loads(line) for line in call("tables", "images", "--json").out.splitlines())
    assert column["unit"] == "px"


def test_export_says_what_it_wrote(call: Call, reader: FakeReader) -> None:
    ended = call("export", "snapshot", "images")
    assert (ended.code, ended.err) == (0, "images: 5,840 rows\n")
    assert reader.asked[-1] == (Path("snapshot"), ("images",))
