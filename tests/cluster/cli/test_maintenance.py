"""`rayward maintain`: what it tells, and that it reaches the lake."""

import json
from pathlib import Path

import pytest

from cluster.lake import maintenance
from tests.cluster.cli.conftest import Call
from tests.cluster.lake.small import SmallLake, image


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallLake:
    """Three small files, and two are enough to be merged."""
    monkeypatch.setattr(maintenance, "SMALL_FILES", 1)
    lake = SmallLake(str(tmp_path / "lake"))
    for number in range(3):
        lake.add("images", f"r{number}", [image(str(number))])
    return lake


@pytest.mark.usefixtures("lake")
def test_it_tells_what_it_did_and_then_that_nothing_is_left(call: Call) -> None:
    ended = call("maintain")
    assert ended.code == 0
    (told,) = [line.split() for line in ended.out.splitlines() if line.startswith("images")]
    assert told[:3] == ["images", "3", "1"]
    again = call("maintain")
    assert (again.code, again.out) == (0, "")
    assert "nothing to merge or to remove" in again.err


def test_in_json_each_partition_is_a_line(call: Call, lake: SmallLake) -> None:
    sizes = [one.bytes for one in lake.reader()._snapshot("images").files]
    (line,) = call("maintain", "--json", "--lake", lake.root).out.splitlines()
    told = json.loads(line)
    (merged,) = lake.reader()._snapshot("images").files
    assert told == {
        "table": "images",
        "partition": "",
        "files_before": 3,
        "files_after": 1,
        "bytes_before": sum(sizes),
        "bytes_after": merged.bytes,
        "removed_files": 0,
        "removed_bytes": 0,
    }
    assert call("maintain", "--json").out == ""
