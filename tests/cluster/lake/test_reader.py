"""The reader shows rows of published runs alone, and lets nothing but reading through."""

import json
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.commit import commit_files
from cluster.lake.files import write_rows
from cluster.lake.reader import LakeReader
from cluster.lake.views import VIEWS
from cluster.storage import open_storage
from schemas.errors import LakeError, QueryError
from schemas.tables import TABLES, rows_of
from tests.cluster.lake.small import SmallLake, at, image, prediction


@pytest.fixture
def lake(any_root: str) -> SmallLake:
    return SmallLake(any_root)


@pytest.fixture
def local(tmp_path: Path) -> SmallLake:
    return SmallLake(str(tmp_path / "lake"))


def ids(reader: LakeReader, table: str = "images") -> list[str]:
    found = reader.query(f"SELECT image_id FROM {table} ORDER BY image_id")
    return [str(one) for one in found["image_id"].to_pylist()]


@pytest.mark.parametrize("state", ["held", "discarded", "abandoned", "running", None])
def test_only_published_runs_are_seen(lake: SmallLake, state: str | None) -> None:
    lake.publish("r1", images=[image("a"), image("b")])
    lake.add("images", "r2", [image("c")])
    if state is not None:
        lake.state("r2", state)
    assert ids(lake.reader()) == ["a", "b"]
    assert lake.reader().count("images") == 2
    assert lake.reader().published() == {"r1"}


def test_the_last_state_of_a_run_counts(local: SmallLake) -> None:
    local.add("images", "r1", [image("a")])
    local.state("r1", "held")
    assert ids(local.reader()) == []
    local.state("r1", "published")
    assert ids(local.reader()) == ["a"]
    local.state("r1", "discarded")
    assert ids(local.reader()) == []


@pytest.mark.parametrize("compacted", [False, True])
def test_the_newest_published_run_of_a_key(lake: SmallLake, compacted: bool) -> None:
    facts = json.dumps({"note": "longer than what the log keeps of a text" * 3})
    lake.state("r1", "published", key="toy/a", fingerprint="f1", facts="{}")
    lake.state("r2", "held", key="toy/a", fingerprint="f2", facts=facts)
    lake.state("r2", "published", key="toy/a", fingerprint="f2", facts=facts)
    lake.state("r3", "held", key="toy/a", fingerprint="f3", facts="{}")
    lake.state("r4", "published", key="toy/a/b", fingerprint="f4", facts="{}")
    if compacted:
        lake.compact("runs")
    found = lake.reader().last_run(("toy", "a"))
    assert found == {"fingerprint": "f2", "facts": json.loads(facts)}
    assert lake.reader().last_run(("toy", "c")) is None
    held = {one.run_id for one in lake.reader().runs().values() if one.state == "held"}
    assert held == {"r3"}


def test_of_two_states_at_one_moment_the_hiding_one_counts(local: SmallLake) -> None:
    local.add("images", "r1", [image("a")])
    local.state("r1", "held", at(5))
    local.state("r1", "published", at(5))
    assert local.reader().published() == frozenset()


def test_tables_nobody_wrote_to_have_no_rows_but_all_columns(local: SmallLake) -> None:
    for name, described in TABLES.items():
        found = local.reader().query(f"SELECT * FROM {name}")
        assert found.num_rows == 0
        assert found.schema.names == described.schema.names
        assert found.schema.types == described.schema.types
        assert local.reader().count(name) == 0
    for name in VIEWS:
        assert local.reader().query(f"SELECT * FROM {name}").num_rows == 0


def test_a_root_without_a_directory_reads_as_empty(tmp_path: Path) -> None:
    reader = LakeReader(SmallLake(str(tmp_path / "lake")).storage)
    assert reader.query("SELECT count(*) AS n FROM images")["n"].to_pylist() == [0]


def test_compacted_files_hide_the_rows_of_unpublished_runs(lake: SmallLake) -> None:
    lake.publish("r1", predictions=[prediction("a", "m1", 0.5), prediction("a", "m2", 0.5)])
    lake.add("predictions", "r2", [prediction("b", "m1", 0.5)])
    lake.publish("r3", predictions=[prediction("c", "m1", 0.5)])
    lake.compact("predictions")
    files = lake.reader().files("predictions")
    assert sorted(one.run_id or "several" for one in files) == ["r1", "several"]
    found = lake.reader().query(
        "SELECT model_id, image_id, run_id FROM predictions ORDER BY model_id, image_id"
    )
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("m1", "a", "r1"),
        ("m1", "c", "r3"),
        ("m2", "a", "r1"),
    ]
    assert lake.reader().count("predictions") == 3


def test_runs_are_the_same_off_the_log_and_off_compacted_files(lake: SmallLake) -> None:
    for number in range(4):
        lake.add("images", f"r{number}", [image(str(number))])
        lake.state(f"r{number}", "held" if number == 1 else "published")
    lake.state("r2", "discarded")
    before = lake.reader().published()
    assert before == {"r0", "r3"}
    lake.compact("runs")
    assert [one.rows for one in lake.reader().files("runs")] == [5]
    assert lake.reader().published() == before
    lake.state("r1", "published")
    assert lake.reader().published() == {"r0", "r1", "r3"}


def test_a_file_without_statistics_is_read_and_checked(local: SmallLake) -> None:
    local.add("images", "r1", [image("a")], statistics=False)
    local.add("images", "r2", [image("b")], statistics=False)
    local.state("r2", "published")
    assert ids(local.reader()) == ["b"]
    assert local.reader().count("images") == 1


def test_every_row_of_runs_is_shown_whatever_its_state(local: SmallLake) -> None:
    local.state("r1", "held")
    local.publish("r2", images=[image("a")])
    found = local.reader().query("SELECT run_id, state FROM runs ORDER BY run_id")
    assert found["state"].to_pylist() == ["held", "published"]
    assert local.reader().count("runs") == 2


def test_as_of_shows_the_lake_as_it_stood(lake: SmallLake) -> None:
    lake.add("images", "r1", [image("a")])
    lake.state("r1", "published", at(10))
    lake.add("images", "r2", [image("b")])
    lake.state("r2", "held", at(20))
    lake.state("r2", "published", at(30))
    lake.state("r1", "discarded", at(40))
    seen = {minute: ids(lake.reader(at(minute))) for minute in (9, 10, 20, 30, 39.9, 40)}
    assert seen == {9: [], 10: ["a"], 20: ["a"], 30: ["a", "b"], 39.9: ["a", "b"], 40: ["b"]}
    assert lake.reader(at(20)).query("SELECT state FROM runs ORDER BY recorded_at")[
        "state"
    ].to_pylist() == ["published", "held"]
    assert lake.reader(at(20)).count("runs") == 2


def test_as_of_needs_a_zone(local: SmallLake) -> None:
    with pytest.raises(QueryError, match=r"needs a time zone: got 2026-11-21T08:00:00"):
        local.reader(datetime(2026, 11, 21, 8))  # noqa: DTZ001 - the mistake under test


def test_a_reader_looks_once(local: SmallLake) -> None:
    local.publish("r1", images=[image("a")])
    reader = local.reader()
    assert ids(reader) == ["a"]
    # Published between the reader's look at `runs` and its look at `quality`.
    local.publish(
        "r2", images=[image("b")], quality=[{"dataset": "d", "image_id": "a", "kept": True}]
    )
    assert ids(reader) == ["a"]
    assert ids(reader, "quality") == []
    assert ids(local.reader(), "quality") == ["a"]


def test_a_polling_reader_sees_runs_whole_or_not_at_all(local: SmallLake) -> None:
    done = threading.Event()
    seen: list[tuple[int, int]] = []

    def poll() -> None:
        while not done.is_set():
            (row,) = (
                local.reader()
                .query(
                    "SELECT (SELECT count(*) FROM images) AS images,"
                    " (SELECT count(*) FROM quality) AS quality"
                )
                .to_pylist()
            )
            seen.append((row["images"], row["quality"]))

    poller = threading.Thread(target=poll)
    poller.start()
    for run in range(8):
        names = [f"{run}-{number}" for number in range(3)]
        local.add(
            "quality", f"r{run}", [{"dataset": "d", "image_id": one, "kept": True} for one in names]
        )
        local.add("images", f"r{run}", [image(one) for one in names])
        local.state(f"r{run}", "held" if run % 4 == 3 else "published")
    done.set()
    poller.join()
    assert all(images == quality and images % 3 == 0 for images, quality in seen)
    assert sorted(seen) == seen
    assert local.reader().count("images") == 18


def test_what_the_lake_writes_is_read(lake: SmallLake) -> None:
    """The contract with the writing side: its files, statistics and commits."""
    rows = rows_of("predictions", [prediction("b", "0042", 0.25, 0.75), prediction("a", "m", 1.0)])
    for run in ("r1", "r2"):
        files = write_rows(lake.storage, "predictions", rows, run_id=run, shard="00000")
        commit_files(lake.storage, "predictions", files, run_id=run, key=(run,), planned={})
    state = rows_of("runs", [{"state": "published", "recorded_at": at(1)}])
    files = write_rows(lake.storage, "runs", state, run_id="r1", shard="published")
    commit_files(lake.storage, "runs", files, run_id="r1", key=("r1",), planned={})
    found = lake.reader().query("SELECT * FROM predictions ORDER BY image_id")
    assert found.schema.types == TABLES["predictions"].schema.types
    assert found["run_id"].to_pylist() == ["r1", "r1"]
    # A model_id that looks like a number stays text.
    assert found["model_id"].to_pylist() == ["m", "0042"]
    assert found["scores"].to_pylist() == [[1.0], [0.25, 0.75]]
    assert all(one.run_id == "r1" for one in lake.reader().files("predictions"))


def test_values_without_statistics_are_found(lake: SmallLake) -> None:
    """The writer leaves long texts, booleans and missing values out of a file's statistics."""
    uri = "/archive/" + "long/" * 30 + "image.png"
    rows = rows_of("images", [image("a", uri), image("b", age=3.0, bits=8)])
    files = write_rows(lake.storage, "images", rows, run_id="r1", shard="00000")
    commit_files(lake.storage, "images", files, run_id="r1", key=("r1",), planned={})
    lake.publish(
        "r1",
        quality=[
            {"dataset": "d", "image_id": "a", "kept": True},
            {"dataset": "d", "image_id": "b", "kept": False},
        ],
    )
    for condition, expected in {
        f"uri = '{uri}'": "a",
        "uri < '/archive/c'": "b",
        "bits IS NULL": "a",
        "bits = 8": "b",
        "age < 4": "b",
        "age IS NULL": "a",
    }.items():
        found = lake.reader().query(f"SELECT image_id FROM images WHERE {condition}")
        assert (condition, found["image_id"].to_pylist()) == (condition, [expected])
    for kept, expected in {"kept": "a", "NOT kept": "b"}.items():
        found = lake.reader().query(f"SELECT image_id FROM quality WHERE {kept}")
        assert found["image_id"].to_pylist() == [expected]


@pytest.mark.parametrize("folder", ["site=7", "it's [odd] *?", "{a,b}", "plain"])
def test_the_lake_may_lie_in_any_folder(tmp_path: Path, folder: str) -> None:
    lake = SmallLake(str(tmp_path / folder / "lake"))
    lake.publish("r1", images=[image("a", site="north")], predictions=[prediction("a", "m", 1.0)])
    found = lake.reader().query(
        "SELECT site, model_id FROM images JOIN predictions USING (image_id)"
    )
    assert found.to_pylist() == [{"site": "north", "model_id": "m"}]


def test_only_the_tables_a_query_needs_are_opened(local: SmallLake) -> None:
    local.publish(
        "r1", images=[image("a")], quality=[{"dataset": "d", "image_id": "a", "kept": True}]
    )
    cases: dict[str, set[str]] = {
        "SELECT 1": set(),
        "SELECT * FROM Images": {"images"},
        'SELECT * FROM "images" WHERE image_id IN (SELECT image_id FROM rejects)': {
            "images",
            "rejects",
        },
        "WITH q AS (FROM kept_images) SELECT * FROM q": {"images", "quality"},
        "SELECT * FROM query_table('latest_predictions')": {"predictions", "models"},
    }
    for sql, expected in cases.items():
        reader = local.reader()
        reader.query(sql)
        assert set(reader._snapshots) == {"runs"} | expected


def test_parameters_are_named(lake: SmallLake) -> None:
    lake.publish("r1", images=[image("a", bytes=5), image("b", bytes=7)])
    sql = "SELECT image_id FROM images WHERE bytes > $least AND image_id = ANY($ids)"
    assert lake.reader().query(sql, {"least": 5, "ids": ["a", "b"]})["image_id"].to_pylist() == [
        "b"
    ]
    with pytest.raises(QueryError, match=r"Values were not provided .* ids"):
        lake.reader().query(sql, {"least": 5})


def test_times_come_in_utc(local: SmallLake) -> None:
    local.publish("r1", images=[image("a", seen_at=at(90))])
    found = local.reader().query("SELECT seen_at, CAST(seen_at AS VARCHAR) AS text FROM images")
    assert found.schema.field("seen_at").type == pa.timestamp("us", "UTC")
    assert found.to_pylist() == [{"seen_at": at(90), "text": "2026-11-01 01:30:00+00"}]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM images",
        "VALUES (1)",
        "SELECT 1;",
        "WITH images AS (SELECT * FROM images) SELECT * FROM images",
        "DESCRIBE images",
        "SUMMARIZE images",
        "SHOW TABLES",
        "EXPLAIN SELECT * FROM images",
        "EXPLAIN (FORMAT JSON) SELECT * FROM images",
        "-- why\nexplain analyze WITH a AS (FROM images) SELECT * FROM a",
        "PIVOT images ON dataset IN ('d') USING count(*)",
        "SELECT '{\"a\": 1}'::JSON ->> '$.a'",
    ],
)
def test_every_way_to_read_is_allowed(local: SmallLake, sql: str) -> None:
    local.publish("r1", images=[image("a")])
    assert local.reader().query(sql).num_columns >= 1


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 1; SELECT 2", "one statement: got 2 statements"),
        ("", "one statement: got 0 statements"),
        ("DROP VIEW images", "only reads: got DROP"),
        ("CREATE TABLE t AS SELECT 1", "only reads: got CREATE"),
        ("INSERT INTO images SELECT * FROM images", "only reads: got INSERT"),
        ("COPY (SELECT 1) TO '{folder}/out.csv'", "only reads: got COPY"),
        ("ATTACH '{folder}/other.db'", "only reads: got ATTACH"),
        ("INSTALL httpfs", "only reads: got LOAD"),
        ("SET memory_limit = '100GB'", "only reads: got SET"),
        ("PRAGMA enable_profiling", "only reads: got"),
        ("PIVOT images ON dataset USING count(*)", "only reads: got MULTI"),
        ("SELECT * FROM read_csv('{folder}/secret.txt')", "nothing else"),
        ("SELECT * FROM read_text('{folder}/secret.txt')", "nothing else"),
        ("SELECT * FROM glob('{folder}/*')", "nothing else"),
        ("SELECT * FROM '{folder}/secret.csv'", "nothing else"),
        ("SELECT * FROM read_parquet('{folder}/lake/tables/images/*.parquet')", "nothing else"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'", "only reads: got COPY"),
        ("EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{folder}/out.csv'", "only reads: got COPY"),
        ("EXPLAIN/**/ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'", "only reads: got"),
        ("EXPLAIN CREATE TABLE t AS SELECT 1", "only reads: got CREATE"),
        ("SELECT * FROM enable_logging(storage := 'file')", "configuration"),
        (
            "SELECT * FROM Image",
            r"no such table or view \(did you mean images\?\): got Image. It has images, annot",
        ),
        ("SELECT no_such(1)", "failed: got .*no_such"),
        ("SELECT wdth FROM images", "failed: got .*wdth"),
        ("SELEKT 1", "failed: got .*SELEKT"),
        ("SELECT * FROM a_variable", "no such table or view: got a_variable"),
        ("SELECT CAST(dataset AS INTEGER) FROM images", "failed: got"),
    ],
)
def test_a_query_reads_the_lake_and_nothing_else(
    local: SmallLake, tmp_path: Path, sql: str, message: str
) -> None:
    a_variable = pa.table({"secret": [1]})
    assert a_variable.num_rows == 1
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    local.publish("r1", images=[image("a")])
    with pytest.raises(QueryError, match=f"(?s){message}") as caught:
        local.reader().query(sql.replace("{folder}", str(tmp_path)))
    assert "secret\n" not in str(caught.value)
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "other.db").exists()


def test_files_of_unpublished_runs_cannot_be_read_by_path(local: SmallLake) -> None:
    local.publish("r1", images=[image("a")])
    local.add("images", "r2", [image("b")])
    (hidden,) = (Path(local.root) / "tables" / "images").glob("r2-*.parquet")
    assert pq.read_table(hidden)["image_id"].to_pylist() == ["b"]
    with pytest.raises(QueryError, match="nothing else"):
        local.reader().query(f"SELECT * FROM images, read_parquet('{hidden}')")


def test_what_does_not_fit_into_memory_spills_and_leaves_nothing(
    local: SmallLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spill))
    reader = LakeReader(local.storage, memory_mb=32)
    sql = "SELECT count(*) AS n FROM (SELECT DISTINCT hash(range) || 'x' FROM range(1500000))"
    assert reader.query(sql)["n"].to_pylist() == [1_500_000]
    assert list(spill.iterdir()) == []


@pytest.mark.parametrize("spare", [2000, 63])
def test_a_query_gets_more_memory_while_there_is_some(
    local: SmallLake, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    monkeypatch.setattr("cluster.lake.engine.spare_mb", lambda: spare)
    reader = LakeReader(local.storage, memory_mb=16)
    # A list can't spill: it takes some 100 MB.
    sql = "SELECT len(list(repeat('x', 1000) || range)) AS n FROM range(100000)"
    if spare == 2000:
        assert reader.query(sql)["n"].to_pylist() == [100_000]
    else:
        with pytest.raises(QueryError, match="more memory than it may use"):
            reader.query(sql)


def test_batches_hold_all_rows_a_few_at_a_time(lake: SmallLake) -> None:
    lake.publish("r1", images=[image(f"{number:05d}") for number in range(5000)])
    with lake.reader().batches("SELECT image_id FROM images ORDER BY image_id") as batches:
        found = list(batches)
    assert max(one.num_rows for one in found) <= 2048
    names = [name for one in found for name in one.column(0).to_pylist()]
    assert names == [f"{number:05d}" for number in range(5000)]


# The last row can't be cast, long after the first batches.
BREAKS = (
    "SELECT CAST(if(range < 2999999, '1', 'DOE_' || range) AS INTEGER) AS n FROM range(3000000)"
)


def test_a_stream_that_breaks_tells_the_kind_of_its_error_alone(local: SmallLake) -> None:
    with local.reader().batches(BREAKS) as batches:
        assert batches.read_next_batch().num_rows > 0
        with pytest.raises(QueryError) as caught:
            batches.read_all()
    assert str(caught.value) == "The query failed: got Conversion Error."
    assert "DOE" not in str(caught.value.__cause__)


def test_errors_of_whoever_reads_batches_stay_theirs(local: SmallLake) -> None:
    with pytest.raises(OSError, match="disk full"), local.reader().batches("SELECT 1"):
        raise OSError("disk full")


def test_a_damaged_log_is_named(local: SmallLake) -> None:
    local.publish("r1", images=[image("a")])
    log = Path(local.root) / "tables" / "images" / "_delta_log"
    next(iter(sorted(log.glob("*.json")))).write_text("{broken")
    with pytest.raises(LakeError, match=r"can't be opened \(images\)"):
        ids(local.reader())


def test_settings_do_not_follow_the_user_home(local: SmallLake) -> None:
    """No extension is looked for, no progress bar shown, no order of rows promised."""
    names = (
        "autoinstall_known_extensions",
        "autoload_known_extensions",
        "enable_progress_bar",
        "enable_external_access",
    )
    values: list[Any] = [
        local.reader().query(f"SELECT current_setting('{name}') AS v")["v"][0].as_py()
        for name in names
    ]
    assert values == [False, False, False, False]


def test_a_table_opened_on_another_root_is_another_table(tmp_path: Path) -> None:
    one, other = SmallLake(str(tmp_path / "one")), SmallLake(str(tmp_path / "other"))
    one.publish("r1", images=[image("a")])
    assert ids(LakeReader(open_storage(str(tmp_path / "one")))) == ["a"]
    assert ids(other.reader()) == []


def test_explaining_a_copy_overwrites_no_file_of_the_lake(local: SmallLake) -> None:
    local.publish("r1", images=[image("a")])
    (file,) = local.reader().files("images")
    path = f"{local.root}/tables/images/{file.path}"
    before = Path(path).read_bytes()
    for explain in ("EXPLAIN ANALYZE", "EXPLAIN (ANALYZE, FORMAT JSON)", "EXPLAIN ANALYZE\n--\n"):
        with pytest.raises(QueryError, match="only reads|failed"):
            local.reader().query(f"{explain} COPY (SELECT * FROM images) TO '{path}'")
    assert Path(path).read_bytes() == before


def test_runs_of_a_key_come_newest_first_as_they_stand(any_root: str) -> None:
    lake = SmallLake(any_root)
    for run, state, key in (
        ("R1", "published", "score/m"),
        ("R2", "held", "score/m"),
        ("R3", "published", "score/other"),
        ("R4", "held", "score/m"),
        ("R5", "abandoned", "score/m"),
    ):
        lake.state(run, state, key=key, facts=f'{{"run": "{run}"}}')
    lake.state("R2", "published", key="score/m", facts="{}")
    lake.state("R4", "discarded", key="score/m")
    found = [
        (row["run_id"], row["state"], row["facts"]) for row in lake.reader().runs_of(("score", "m"))
    ]
    assert found == [("R2", "published", "{}"), ("R1", "published", '{"run": "R1"}')]
    earlier = lake.reader(as_of=at(5)).runs_of(("score", "m"))
    assert [(row["run_id"], row["state"]) for row in earlier] == [
        ("R4", "held"), ("R2", "held"), ("R1", "published"),
    ]  # fmt: skip
