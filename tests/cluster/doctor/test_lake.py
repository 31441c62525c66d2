"""The doctor's checks of a lake, on a real store on disk."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore.store import LocalStore

from cluster.doctor.check import State
from cluster.doctor.examination import examine
from cluster.doctor.lake import check_clock, check_format, check_lake, check_writing, local_root
from cluster.lake.layout import LAKE_FILE
from cluster.storage import Storage, open_storage
from schemas.tables import FORMAT_VERSION


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    folder.mkdir()
    (folder / LAKE_FILE).write_text(json.dumps({"format": FORMAT_VERSION}))
    return folder


class OverwritingStorage(Storage):
    """A store that does not know conditional writes."""

    def put_new(self, path: str, data: bytes) -> bool:
        self.put(path, data)
        return True


class ReadOnlyStorage(Storage):
    def put_new(self, path: str, data: bytes) -> bool:
        raise PermissionError(f"may not write {path}")

    def delete(self, path: str) -> None:
        raise PermissionError(f"may not delete {path}")


class StorageOfAnotherTime(Storage):
    """A store whose clock is wrong."""

    skew = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skew


def test_a_lake_in_order(lake: Path) -> None:
    checks = list(check_lake(str(lake)))
    assert [check.name for check in checks] == ["lake disk", "lake", "lake writing", "clock"]
    assert [check.state for check in checks[1:]] == [State.OK] * 3
    assert checks[1].detail == f"{lake}, format {FORMAT_VERSION}"
    left = [path for path in lake.rglob("*") if path.is_file()]
    assert left == [lake / LAKE_FILE]


def test_a_lake_to_come_is_not_made(tmp_path: Path) -> None:
    checks = list(check_lake(str(tmp_path / "lake")))
    assert (checks[-1].name, checks[-1].state) == ("lake", State.WARN)
    assert "is not there" in checks[-1].detail
    assert not (tmp_path / "lake").exists()


def test_a_folder_that_is_no_lake(tmp_path: Path) -> None:
    check = check_format(open_storage(str(tmp_path)))
    assert check.state is State.WARN
    assert "holds no lake" in check.detail


def test_a_lake_of_another_format(lake: Path) -> None:
    (lake / LAKE_FILE).write_text(json.dumps({"format": FORMAT_VERSION + 1}))
    check = check_format(open_storage(str(lake)))
    assert check.state is State.FAIL
    assert f"format {FORMAT_VERSION + 1}, this version reads {FORMAT_VERSION}" in check.detail


def test_a_damaged_lake_file_is_a_finding(lake: Path) -> None:
    (lake / LAKE_FILE).write_text("{")
    assert [check.state for check in check_lake(str(lake))][1:] == [State.FAIL]


def test_a_scheme_nobody_knows() -> None:
    (check,) = check_lake("gopher://archive/lake")
    assert check.state is State.FAIL
    assert check.remedy


def test_a_store_without_conditional_writes_fails(lake: Path) -> None:
    check = check_writing(OverwritingStorage(str(lake), LocalStore(lake), {}))
    assert check.state is State.FAIL
    assert "If-None-Match" in check.remedy


def test_a_lake_one_may_only_read_is_a_warning(lake: Path) -> None:
    check = check_writing(ReadOnlyStorage(str(lake), LocalStore(lake), {}))
    assert check.state is State.WARN
    assert "PermissionError" in check.detail
    assert "queries work" in check.remedy


@pytest.mark.parametrize(
    ("seconds", "state", "said"),
    [
        (0, State.OK, "agrees"),
        (-4, State.OK, "agrees"),
        (90, State.WARN, "90 s behind"),
        (-90, State.WARN, "89 s ahead of"),  # a second is granted to stores that round
    ],
)
def test_a_wrong_clock_is_told(lake: Path, seconds: int, state: State, said: str) -> None:
    storage = StorageOfAnotherTime(str(lake), LocalStore(lake), {})
    storage.skew = timedelta(seconds=seconds)
    check = check_clock(storage)
    assert (check.state, said in check.detail) == (state, True)


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("/data/lake", Path("/data/lake")),
        ("file:///data/lake", Path("/data/lake")),
        ("s3://b/p", None),
    ],
)
def test_where_a_root_lies(root: str, path: Path | None) -> None:
    assert local_root(root) == path


@pytest.mark.s3
def test_a_lake_in_a_bucket(s3_root: str) -> None:
    states = {check.name: check.state for check in check_lake(s3_root)}
    assert states == {"lake": State.WARN, "lake writing": State.OK, "clock": State.OK}
    open_storage(s3_root).put(LAKE_FILE, json.dumps({"format": FORMAT_VERSION}).encode())
    lake, *_ = check_lake(s3_root)
    assert (lake.state, lake.detail) == (State.OK, f"{s3_root}, format {FORMAT_VERSION}")


@pytest.mark.s3
def test_a_bucket_that_is_not_there_is_a_finding(s3_root: str) -> None:
    (check,) = check_lake(s3_root.replace("bucket-", "no-such-bucket-"))
    assert check.state is State.FAIL
    assert "credentials" in check.remedy


def test_the_whole_examination(lake: Path, tmp_path: Path) -> None:
    checks = list(examine(str(lake), tmp_path / "pseudonym.key"))
    names = [check.name for check in checks]
    assert names[0] == "python"
    assert names[-1] == "clock"
    assert len(set(names)) == len(names) == 14
    for check in checks:
        assert check.detail
        assert bool(check.remedy) is (check.state is not State.OK)
