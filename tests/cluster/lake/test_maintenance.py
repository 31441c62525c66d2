"""Maintenance changes files and nothing that a reader, a run or a person's decision rests on."""

import os
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from cluster.lake import commit, maintenance
from cluster.lake.commit import commit_files, ensure_table, open_table, read_versions
from cluster.lake.committing import close, commit_run
from cluster.lake.decisions import discard, publish
from cluster.lake.files import write_rows
from cluster.lake.leases import hold
from cluster.lake.maintenance import KEY as MAINTAIN
from cluster.lake.maintenance import maintain
from cluster.lake.reader import LakeReader
from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from cluster.lake.views import VIEWS
from cluster.prepared import PreparedReader
from cluster.storage import Storage, open_storage
from schemas.errors import CommitConflict, LeaseHeld
from schemas.plan import Counts, Plan
from schemas.reasons import RunState
from schemas.tables import TABLES, rows_of
from tests.cluster.lake.small import SmallLake, at, prediction
from tests.cluster.lake.toy import KEY, SPEC, InlinePool, contents, ids, plan_toy, run_toy

IMAGES = ids(10)
WORTH = {"state": "present", "dataset": "d", "part": "test", "reason": "corrupt", "frame": 0}


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small files are enough to be merged."""
    monkeypatch.setattr(maintenance, "SMALL_FILES", 1)


def forget_at_once(storage: Storage, *tables: str) -> None:
    """Let tables promise nothing of files that left them, nor of files that never came in."""
    for table in tables:
        ensure_table(storage, table).alter.set_table_properties(
            {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
        )


def value_of(field: pa.Field, number: int) -> Any:
    """A value of a column's type that tells rows apart; some are missing."""
    kind = field.type
    if field.name in WORTH:
        return WORTH[field.name]
    if field.name in ("model_id", "recipe"):
        return f"{field.name[0]}{number % 2}"
    if number % 3 == 0 and field.name != "image_id":
        return None
    if pa.types.is_list(kind):
        return [f"c{number}", "d"] if pa.types.is_string(kind.value_type) else [number / 2, 0.5]
    if pa.types.is_string(kind):
        return "{}" if b"JSON" in field.metadata[b"description"] else f"{number:03d}" * 30
    if pa.types.is_temporal(kind):
        return at(number)
    return bytes([number]) * 100 if pa.types.is_binary(kind) else pa.scalar(number).cast(kind)


def fill(lake: SmallLake, tables: Iterable[str] = TABLES) -> None:
    """Five runs with files in ``tables``: two published, one held, discarded, and unfinished."""
    for table in tables:
        ensure_table(lake.storage, table)
    states = {"r0": "published", "r1": "held", "r2": "published", "r3": "discarded", "r4": ""}
    for number, (run, state) in enumerate(states.items()):
        for name in set(tables) - {"runs"}:
            fields = [one for one in TABLES[name].schema if one.name != "run_id"]
            rows = [
                {one.name: value_of(one, number * 4 + row) for one in fields} for row in range(4)
            ]
            files = write_rows(lake.storage, name, rows_of(name, rows), run_id=run, shard="0")
            commit_files(lake.storage, name, files, run_id=run, key=("toy", run), planned={})
        if state:
            lake.state(run, state)


def rows_in(
    lake: SmallLake, as_of: datetime | None = None, names: Iterable[str] = (*TABLES, *VIEWS)
) -> dict[str, list[str]]:
    """All rows of tables and views; the reader counts as many in a table."""
    reader = lake.reader(as_of)
    found = {}
    for name in names:
        rows = reader.query(f"SELECT * FROM {name}").to_pylist()
        found[name] = sorted(map(repr, rows))
        assert name in VIEWS or reader.count(name) == len(rows)
    return found


@pytest.mark.usefixtures("eager")
def test_readers_see_the_same_now_and_as_of_then(root: str) -> None:
    lake = SmallLake(root)
    fill(lake)
    now, then = rows_in(lake), rows_in(lake, at(1), TABLES)
    done = maintain(lake.storage)
    assert (rows_in(lake), rows_in(lake, at(1), TABLES)) == (now, then)
    assert (len(now["images"]), len(then["images"])) == (8, 4)
    assert {one.table for one in done} == set(TABLES)
    assert {(one.files_before, one.files_after) for one in done if one.table != "runs"} == {(5, 1)}
    models = [one.partition for one in done if one.table == "predictions"]
    assert models == ["model_id=m0", "model_id=m1"]
    lake.state("r1", "published")
    assert lake.reader().published() == {"r0", "r1", "r2"}
    assert lake.reader().count("images") == 12


@pytest.mark.usefixtures("eager")
def test_a_lake_is_maintained_wherever_it_lies(any_root: str) -> None:
    lake, names = SmallLake(any_root), ("images", "predictions", "runs")
    fill(lake, names)
    now = rows_in(lake, None, names)
    left = {one.partition: one.files_after for one in maintain(lake.storage)}
    assert left == {"": 1, "model_id=m0": 1, "model_id=m1": 1}
    assert rows_in(lake, None, names) == now
    assert len(now["predictions"]) == 8


@pytest.mark.usefixtures("eager")
def test_a_second_time_there_is_nothing_to_do(root: str) -> None:
    lake = SmallLake(root)
    fill(lake)
    told: list[maintenance.Maintained] = []
    assert maintain(lake.storage, progress=told.append) == told
    assert all(one.bytes_after < one.bytes_before for one in told)
    versions = {name: lake.table(name).version() for name in TABLES}
    assert maintain(lake.storage) == []
    assert {name: lake.table(name).version() for name in TABLES} == versions


def test_only_a_partition_past_fifty_small_files_is_merged(root: str) -> None:
    lake = SmallLake(root)
    for number in range(51):
        rows = [prediction(f"i{number}", "m1", 0.5)]
        if number:
            rows.append(prediction(f"i{number}", "m2", 0.5))
        lake.add("predictions", f"r{number:02d}", rows)
    (done,) = maintain(lake.storage)
    assert (done.table, done.partition) == ("predictions", "model_id=m1")
    assert (done.files_before, done.files_after, done.removed_files) == (51, 1, 0)
    assert len(lake.table("predictions").file_uris()) == 51


@pytest.mark.usefixtures("eager")
def test_compacted_files_are_laid_out_as_their_table_says(root: str) -> None:
    storage = open_storage(root)
    for number in range(4):
        run = f"2026112{number}T000000000Z-prepare-00000{number}"
        rows = [
            {"image_id": f"{number}-{one}", "recipe": "p", "height": 8, "width": 8,
             "pixels": bytes(65)} for one in range(50)
        ]  # fmt: skip
        files = write_rows(storage, "prepared", rows_of("prepared", rows), run_id=run, shard="0")
        commit_files(
            storage, "prepared", files, run_id=run, key=("k",), planned={"prepared": number}
        )
    maintain(storage)
    (file,) = LakeReader(storage)._snapshot("prepared").files
    assert (file.rows, file.first_run, file.last_run) == (
        200,
        "20261120T000000000Z-prepare-000000",
        "20261123T000000000Z-prepare-000003",
    )
    with pq.ParquetFile(Path(root, "tables/prepared", file.path)) as parquet:
        groups = [parquet.metadata.row_group(one) for one in range(parquet.num_row_groups)]
        pixels = groups[0].column(parquet.schema_arrow.get_field_index("pixels"))
        assert [one.num_rows for one in groups] == [64, 64, 64, 8]
        assert parquet.schema_arrow.field("pixels").type == pa.binary()
    assert (pixels.compression, pixels.has_dictionary_page, pixels.is_stats_set) == (
        "LZ4",
        False,
        False,
    )
    found = PreparedReader(storage.root).read(f"tables/prepared/{file.path}", ["3-49"])
    assert {name: (one.height, one.width) for name, one in found.items()} == {"3-49": (8, 8)}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("decide", [publish, discard])
def test_a_held_run_can_still_be_decided_on(root: str, decide: Any) -> None:
    store = LakeStore.open(root, create=True)
    with store.lease(KEY):
        run = store.begin(plan_toy(store, IMAGES), {})
        InlinePool().run_shards(run, SPEC.execution)
        InlinePool().finish(run)
        lease, _ = store._leases[KEY]
        commit_run(LakeRun(store.storage, run.id, resumed=False), lease, state=RunState.HELD,
                   seconds={})  # fmt: skip
    assert {one.table for one in maintain(store.storage)} == {"predictions", "rejects"}
    assert contents(root) == {"predictions": [], "rejects": [], "metrics": []}
    decide(store.storage, run.id)
    maintain(store.storage)
    seen = contents(root)
    told = len(seen["predictions"]), len(seen["rejects"])
    assert told == ((8, 2) if decide is publish else (0, 10))


@pytest.mark.usefixtures("eager")
def test_a_driver_that_died_half_way_through_its_commit_goes_on(root: str, tmp_path: Path) -> None:
    """Its files left the tables by a compaction, yet it makes sure that all are there."""
    append = commit._append

    def die_before_runs(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        if table == "runs":
            raise KeyboardInterrupt
        append(handle, table, files, transactions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit, "_append", die_before_runs)
        with pytest.raises(KeyboardInterrupt):
            run_toy(root, IMAGES)
    storage = open_storage(root)
    forget_at_once(storage, "predictions", "rejects")
    done = {one.table: (one.files_after, one.removed_files) for one in maintain(storage)}
    assert done == {"predictions": (1, 0), "rejects": (1, 0)}
    assert contents(root)["predictions"] == []
    assert run_toy(root, IMAGES).counts.done == 8
    assert run_toy(root, ids(13)).counts == Counts(done=3, up_to_date=10)
    whole = str(tmp_path / "whole")
    run_toy(whole, ids(13))
    seen, expected = contents(root), contents(whole)
    assert seen["predictions"] == expected["predictions"]
    # Nothing protects the files of a run once it is committed.
    assert {one.removed_files for one in maintain(storage)} != {0}
    assert contents(root) == seen


@pytest.mark.usefixtures("eager")
def test_a_run_that_commits_meanwhile_loses_nothing(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each side commits once after the other has read the log and before it writes."""
    run_toy(root, IMAGES)
    store = LakeStore.open(root)
    forget_at_once(store.storage, "predictions", "rejects")
    append, left = commit._append, ["predictions", "rejects", "runs"]

    def maintain_before(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        if table in left:
            left.remove(table)
            maintain(store.storage)
        append(handle, table, files, transactions)

    with monkeypatch.context() as patch:
        patch.setattr(commit, "_append", maintain_before)
        assert run_toy(root, ids(20)).status == "published"
    assert left == []
    with store.lease(KEY):
        run = store.begin(plan_toy(store, ids(30)), {})
        InlinePool().run_shards(run, SPEC.execution)
        InlinePool().finish(run)
        waiting = [run]

        def commit_after(storage: Storage, table: str) -> DeltaTable | None:
            handle = open_table(storage, table)
            if table == "predictions" and waiting:
                store.commit(waiting.pop(), {})
            return handle

        with monkeypatch.context() as patch:
            patch.setattr(maintenance, "open_table", commit_after)
            maintain(store.storage)
    assert waiting == []
    scored = [row["image_id"] for row in contents(root)["predictions"]]
    assert scored == [one for one in ids(30) if int(one, 16) % 5 != 4]
    assert len(contents(root)["rejects"]) == 6
    assert run_toy(root, ids(30)).counts.up_to_date == 30


@pytest.mark.usefixtures("eager")
def test_what_runs_wrote_is_known_afterwards(root: str) -> None:
    run_toy(root, IMAGES)
    store = LakeStore.open(root)
    run_id = store.query("SELECT run_id FROM runs")["run_id"][0].as_py()
    before = read_versions(store.storage, KEY).key
    files = write_rows(store.storage, "metrics", rows_of("metrics", [{}]), run_id="x", shard="0")
    maintain(store.storage)
    assert read_versions(store.storage, KEY).key == before
    assert before["predictions"] == 1
    for table in before:
        again = {"run_id": run_id, "key": KEY, "planned": {}}
        assert not commit_files(store.storage, table, files, **again)
    with pytest.raises(CommitConflict, match="Another run wrote"):
        commit_files(store.storage, "metrics", files, run_id="x", key=KEY, planned={})


@pytest.mark.usefixtures("eager")
def test_a_commit_whose_answer_is_lost_is_not_repeated(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = commit._append

    def lose_the_answer(handle, table, files, transactions):  # type: ignore[no-untyped-def]
        append(handle, table, files, transactions)
        maintain(open_storage(root))
        raise CommitFailedError("connection reset")

    monkeypatch.setattr(commit, "_append", lose_the_answer)
    assert run_toy(root, IMAGES).status == "published"
    assert run_toy(root, ids(20)).status == "published"
    seen = contents(root)
    assert (len(seen["predictions"]), len(seen["rejects"])) == (16, 4)


@pytest.mark.usefixtures("eager")
def test_a_file_that_a_plan_names_stays_until_its_run_ends(root: str) -> None:
    store = LakeStore.open(root, create=True)
    forget_at_once(store.storage, "prepared")
    for number in range(3):
        row = {"image_id": f"i{number}", "recipe": "p", "height": 1, "width": 1, "pixels": b"\1\7"}
        files = write_rows(store.storage, "prepared", rows_of("prepared", [row]),
                           run_id=f"r{number}", shard="0")  # fmt: skip
        commit_files(store.storage, "prepared", files, run_id=f"r{number}", key=("k", str(number)),
                     planned={})  # fmt: skip
    listed = [f"tables/prepared/{one.path}" for one in LakeReader(store.storage)._snapshot(
        "prepared").files]  # fmt: skip
    named = next(one for one in listed if "r1-0" in one)
    inputs = pa.table({
        "image_id": ["i1", "i9"],
        "prepared": pa.array([named, None], pa.string()).dictionary_encode(),
    })  # fmt: skip
    with store.lease(KEY):
        plan = Plan(kind="score", name="toy", key=KEY, identity={}, params={}, inputs=inputs,
                    bounds=(0, 2), counts=Counts())  # fmt: skip
        run = store.begin(plan, {})
        (done,) = maintain(store.storage)
        assert (done.files_before, done.files_after, done.removed_files) == (3, 1, 2)
        assert [Path(root, one).exists() for one in listed] == [one == named for one in listed]
        assert list(PreparedReader(store.storage.root).read(named, ["i1"])) == ["i1"]
        assert maintain(store.storage) == []
        close(LakeRun(store.storage, run.id, resumed=True))
    (done,) = maintain(store.storage)
    assert (done.files_before, done.files_after, done.removed_files) == (1, 1, 1)
    assert not Path(root, named).exists()


def test_what_was_replaced_or_left_behind_stays_for_thirty_days(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LakeStore.open(root, create=True)
    run_toy(root, IMAGES)
    with store.lease(KEY):
        unfinished = store.begin(plan_toy(store, ids(20)), {})
    monkeypatch.setattr(maintenance, "SMALL_FILES", 1)
    assert {one.removed_files for one in maintain(store.storage)} == {0}
    replaced = DeltaTable(f"{root}/tables/predictions").version() - 1
    older = DeltaTable(f"{root}/tables/predictions", version=replaced)
    assert sum(pa.table(older.get_add_actions(flatten=True))["num_records"].to_pylist()) == 8
    assert all(Path(one).exists() for one in older.file_uris())
    folder = Path(root, "tables/predictions/model_id=m1")
    ages = {"gone-0-a": 31, "gone-0-b": 29, f"{unfinished.id}-00000-c": 31}
    for name, days in ages.items():
        (folder / f"{name}.parquet").write_bytes(b"left")
        moment = time.time() - days * 86_400
        os.utime(folder / f"{name}.parquet", (moment, moment))
    (done,) = maintain(store.storage)
    assert (done.table, done.partition) == ("predictions", "model_id=m1")
    assert (done.removed_files, done.removed_bytes) == (1, 4)
    assert [(folder / f"{name}.parquet").exists() for name in ages] == [False, True, True]
    assert len(contents(root)["predictions"]) == 8


def test_one_driver_maintains_a_lake_at_a_time(root: str) -> None:
    storage = open_storage(root)
    with hold(storage, MAINTAIN), pytest.raises(LeaseHeld, match="maintain"):
        maintain(storage)
    assert maintain(storage) == []


@pytest.mark.usefixtures("eager")
def test_a_table_that_refuses_is_named(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_toy(root, IMAGES)

    def refuse(handle: DeltaTable, table: str, partition: object) -> None:
        raise CommitFailedError("a concurrent transaction deleted the same data")

    monkeypatch.setattr(maintenance, "_merge", refuse)
    with pytest.raises(CommitConflict, match=r"rejects.*same data.*rayward maintain"):
        maintain(open_storage(root))
    assert len(contents(root)["predictions"]) == 8
