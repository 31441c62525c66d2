"""Every command: help, examples, and those that list, decide and check."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cluster.cli import app
from cluster.doctor import Check, State
from cluster.lake.decisions import RunStatus
from cluster.lake.store import LakeStore
from cluster.lake.views import VIEWS
from schemas.jobschema import kind_schema
from schemas.specs import SPECS
from schemas.tables import TABLES
from tests.cluster.cli.conftest import Call

COMMANDS = (
    "run", "plan", "submit", "jobs", "logs", "stop", "report", "status", "publish", "discard",
    "maintain", "query", "tables", "export", "coco", "models", "schema", "doctor",
)  # fmt: skip


def test_the_commands_are_these() -> None:
    group = typer.main.get_command(app)
    assert tuple(group.commands) == COMMANDS  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    (example,) = re.findall(r"Example: rayward (.+)", result.output)
    assert shlex.split(example.partition(" > ")[0])[0] == command


def test_without_a_command_there_is_help(call: Call) -> None:
    ended = call()
    assert ended.code == 2
    assert all(command in ended.out + ended.err for command in COMMANDS)


def test_the_version_is_that_of_the_project(call: Call) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", call("--version").out)


RUNS = [
    RunStatus("R2", "score", "score", "running", 3, 7, 1, 1800, "host-1, process 7"),
    RunStatus("R1", "ingest", "kermany", "published", 0, 0, 2, 5840, ""),
]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty lake whose key file does not exist."""
    LakeStore.open(str(tmp_path / "lake"), create=True)
    return str(tmp_path / "lake")


@pytest.fixture
def listed(lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.lake.decisions.list_runs", lambda storage, limit: RUNS[:limit])


@pytest.mark.usefixtures("listed")
def test_status_shows_runs_at_work_with_their_progress(call: Call) -> None:
    lines = [line.split() for line in call("status").out.splitlines() if line.startswith("R")]
    assert lines[0][:7] == ["R2", "score", "score", "running", "1,800", "1", "3/7"]
    assert lines[0][7:] == ["host-1,", "process", "7"]
    assert lines[1] == ["R1", "ingest", "kermany", "published", "5,840", "2"]
    told = call("status", "--json", "--limit", "1").out.splitlines()
    objects = [json.loads(line) for line in told]
    assert [(one["run_id"], one["shards_done"]) for one in objects] == [("R2", 3)]


@pytest.mark.usefixtures("lake")
def test_status_of_an_empty_lake(call: Call) -> None:
    ended = call("status")
    assert (ended.code, ended.out, ended.err) == (0, "", "No run yet.\n")


@pytest.mark.parametrize("command", ["publish", "discard"])
def test_a_decision_reaches_the_run(
    call: Call, lake: str, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    decided: list[tuple[str, str]] = []
    monkeypatch.setattr(
        f"cluster.lake.decisions.{command}",
        lambda storage, run: decided.append((Path(storage.root).name, run)),
    )
    ended = call(command, "R1", "--lake", lake)
    assert (ended.code, decided) == (0, [("lake", "R1")])
    assert f"Run R1 is {command}ed" in ended.err


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize("command", ["publish", "discard"])
def test_there_is_nothing_to_decide_on_an_unknown_run(call: Call, command: str) -> None:
    ended = call(command, "R1")
    assert ended.code == 2
    assert "no such run" in ended.err


@pytest.mark.parametrize(
    "arguments", [("status",), ("publish", "R"), ("discard", "R"), ("maintain",), ("models",)]
)
def test_without_a_lake_a_command_says_so_and_makes_none(
    call: Call, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ended = call(*arguments)
    assert ended.code == 1
    assert "There is no lake" in ended.err
    assert list(tmp_path.iterdir()) == []


BUNDLE: dict[str, Any] = {
    "name": "pneumonia",
    "version": 2,
    "family": "classifier",
    "classes": ["NORMAL", "PNEUMONIA"],
    "nightly": True,
    "model_id": "0123456789abcdef",
}


@pytest.mark.usefixtures("lake")
def test_no_models_yet(call: Call) -> None:
    assert "No model yet" in call("models").err
    ended = call("models", "pneumonia")
    assert ended.code == 1
    assert "No such bundle" in ended.err


@pytest.mark.usefixtures("lake")
def test_a_model_is_shown(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LakeStore, "bundle", lambda self, name: BUNDLE)
    out = call("models", "pneumonia").out
    assert re.search(r"model_id +0123456789abcdef", out)
    assert json.loads(call("models", "pneumonia", "--json").out) == BUNDLE


@pytest.mark.parametrize("kind", SPECS)
def test_schema_prints_that_of_a_kind(call: Call, kind: str) -> None:
    assert json.loads(call("schema", kind).out) == kind_schema(kind)


def test_schema_prints_that_of_the_job_file_and_says_how_to_use_it(call: Call) -> None:
    ended = call("schema")
    properties = {"lake", "night", "notify", "jobs", "profiles"}
    assert set(json.loads(ended.out)["properties"]) == properties
    assert "yaml-language-server: $schema=" in ended.err


def test_schema_of_no_kind(call: Call) -> None:
    ended = call("schema", "trian")
    assert ended.code == 2
    assert "did you mean train?" in ended.err


@pytest.mark.parametrize(("state", "code"), [(State.OK, 0), (State.WARN, 0), (State.FAIL, 1)])
def test_doctor_tells_each_finding(
    call: Call, monkeypatch: pytest.MonkeyPatch, state: State, code: int
) -> None:
    checks = [Check("python", State.OK, "3.11.7"), Check("ray", state, "1 CPU", "get more")]
    monkeypatch.setattr("cluster.doctor.examine", lambda lake, key_file: iter(checks))
    ended = call("doctor", "--lake", "elsewhere")
    assert ended.code == code
    assert "ok    python: 3.11.7" in ended.out
    assert "get more" in ended.out
    objects = [json.loads(line) for line in call("doctor", "--json").out.splitlines()]
    assert [one["state"] for one in objects] == ["ok", state.value]


@pytest.mark.usefixtures("lake")
def test_an_empty_lake_can_be_read(call: Call, tmp_path: Path) -> None:
    names = [json.loads(line)["name"] for line in call("tables", "--json").out.splitlines()]
    assert names == [*TABLES, *VIEWS]
    assert json.loads(call("query", "SELECT count(*) AS n FROM images", "-f", "json").out) == [
        {"n": 0}
    ]
    assert "px" in call("tables", "images").out
    assert call("export", "snapshot", "images").err == "images: 0 rows\n"
    assert (tmp_path / "snapshot" / "images" / "images.parquet").is_file()


@pytest.mark.usefixtures("lake")
def test_a_query_of_an_unknown_table_names_those_there_are(call: Call) -> None:
    ended = call("query", "SELECT * FROM nowhere")
    assert ended.code == 1
    assert "kept_images" in ended.err
