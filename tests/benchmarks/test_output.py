"""What a benchmark keeps of a row, and what of an earlier call it takes as its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.harness import Bar, Figure, Outcome, Row
from benchmarks.output import (
    MeasuredElsewhereError,
    commits,
    document,
    markdown,
    save,
    saved,
)

MACHINE = {"cpu": "A", "cores": 2, "memory_gib": 23.5, "versions": {"ray": "2.60.0"}}


def row(name: str) -> Row:
    return Row(name, f"what {name} does", "1 x", lambda context: [], minutes=1)


def outcome(name: str, commit: str = "aaaa", **changes: Any) -> Outcome:
    figures = [Figure("ours / theirs", 1.25, "x", Bar(1, "x", at_least=True), details={"n": 3})]
    return Outcome(row(name), figures, 12.5, commit=commit, load_before=0.5, **changes)


def test_a_row_that_was_saved_is_taken_as_it_was(tmp_path: Path) -> None:
    first = outcome("clean")
    save(tmp_path, first, 1.0, MACHINE)
    assert saved(tmp_path, first.row, 1.0, MACHINE) == first
    assert saved(tmp_path, first.row, 0.1, MACHINE) is None
    assert saved(tmp_path, row("other"), 1.0, MACHINE) is None
    save(tmp_path, outcome("clean", failure="OSError: no"), 1.0, MACHINE)
    assert saved(tmp_path, first.row, 1.0, MACHINE) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cpu": "B"}, "clean: cpu A, here B"),
        ({"cores": 4, "memory_gib": 47.0}, "clean: cores 2, here 4; memory_gib 23.5, here 47.0"),
        ({"versions": {"ray": "2.61.0"}}, "clean: ray 2.60.0, here 2.61.0"),
        ({"versions": {"ray": "2.60.0", "torch": "2"}}, "clean: torch None, here 2"),
    ],
)
def test_a_row_of_another_machine_is_refused(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    save(tmp_path, outcome("clean"), 1.0, MACHINE)
    with pytest.raises(MeasuredElsewhereError) as caught:
        saved(tmp_path, row("clean"), 1.0, MACHINE | change)
    assert str(caught.value) == told


def test_a_row_that_does_not_say_where_it_was_measured_is_refused(tmp_path: Path) -> None:
    save(tmp_path, outcome("clean"), 1.0, MACHINE)
    path = tmp_path / "clean.json"
    told = json.loads(path.read_text())
    del told["machine"]
    path.write_text(json.dumps(told))
    with pytest.raises(MeasuredElsewhereError, match="cpu None, here A"):
        saved(tmp_path, row("clean"), 1.0, MACHINE)


def test_several_commits_are_named_and_one_is_not() -> None:
    one = [outcome("clean"), outcome("score")]
    assert commits(one) == ""
    assert markdown(one).splitlines()[-1].startswith("| ours / theirs |")
    several = [*one, outcome("train", "bbbb+")]
    told = "Measured at several commits: clean, score at aaaa; train at bbbb+."
    assert commits(several) == told
    assert markdown(several).splitlines()[-2:] == ["", told]
    rows = document(several, MACHINE, 1.0)["rows"]
    assert [(one["commit"], one["load_before"]) for one in rows] == [
        ("aaaa", 0.5),
        ("aaaa", 0.5),
        ("bbbb+", 0.5),
    ]


def test_going_on_elsewhere_measures_nothing_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []
    rows = tuple(
        Row(name, name, "", lambda context, name=name: measured.append(name) or [], minutes=1)  # type: ignore[misc]
        for name in ("first", "second")
    )
    monkeypatch.setattr(command, "ROWS", rows)
    monkeypatch.setattr(command, "KEPT", tmp_path / "rows")
    monkeypatch.setattr(command, "OUT", tmp_path)
    monkeypatch.setenv(command.KEY_FILE_VARIABLE, "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("sys.argv", ["bench", "--only", "second"])
    assert command.main() == 0
    monkeypatch.setattr("sys.argv", ["bench", "--resume"])
    assert command.main() == 0
    assert measured == ["second", "first"]
    whole = json.loads((tmp_path / "bench.json").read_text())
    assert [one["name"] for one in whole["rows"]] == ["first", "second"]
    monkeypatch.setattr(command, "facts", lambda cores: MACHINE)
    assert command.main() == 2
    told = capsys.readouterr().err
    assert "An earlier call measured a row elsewhere. first: cpu" in told
    assert "Measure it again with --only" in told
    assert measured == ["second", "first"]
