"""Log lines in JSON: one object a line, no secret, no word of another library."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from cluster.cli.app import main
from cluster.progress import Progress
from cluster.watching.logs import (
    TOLD,
    JsonFormatter,
    LogFormat,
    configure_logs,
    log_fields,
    log_format,
    log_line,
)
from schemas.errors import ShardFailed, UsageError


def formatted(name: str, message: str, error: BaseException | None = None, **extra: object) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord(name, logging.WARNING, "/x/y/fetch.py", 7, message, (), info)
    for key, value in extra.items():
        setattr(record, key, value)
    return JsonFormatter().format(record)


def test_a_line_is_an_object_with_its_fields() -> None:
    with log_fields({"run_id": "R", "job": "clean"}), log_fields({"shard": "00003"}):
        line = formatted("cluster.shards", "shard done", **{TOLD: {"done": 4}})
    assert "\n" not in line
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "warning",
        "message": "shard done",
        "run_id": "R",
        "job": "clean",
        "shard": "00003",
        "logger": "cluster.shards",
        "done": 4,
    }
    assert "run_id" not in json.loads(formatted("cluster.shards", "later"))


def test_secrets_are_masked_in_messages_and_fields() -> None:
    key = "AKIA" + "ABCDEFGHIJKLMNOP"
    line = formatted("cluster.x", f"reads s3://me:hidden@bucket as {key}", **{TOLD: {"at": key}})
    assert "hidden" not in line and key not in line
    assert json.loads(line)["message"] == "reads s3://***@bucket as ***"


def test_words_of_other_libraries_are_not_repeated() -> None:
    line = formatted("botocore.auth", "signed /archive/Miller^Anna.dcm", **{TOLD: {"of": "Miller"}})
    assert "Miller" not in line
    assert json.loads(line)["message"] == "botocore.auth at fetch.py:7"


def test_of_an_exception_of_others_class_and_place_are_told() -> None:
    try:
        raise OSError("no such file: /archive/Miller^Anna.dcm")
    except OSError as error:
        line = formatted("cluster.shards", "a shard failed", error)
    assert "Miller" not in line
    assert json.loads(line)["error"].startswith("OSError at test_logs.py:")
    ours = ShardFailed("A shard failed", where="R, shard 00001", remedy="run it again")
    assert json.loads(formatted("cluster.shards", "x", ours))["error"] == str(ours)


def test_a_value_that_json_lacks_is_told_by_its_type() -> None:
    assert json.loads(log_line("x", {"odd": {1, 2}}))["odd"] == "set"


@pytest.fixture
def in_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root, names = logging.getLogger(), ("cluster", "jobs", "workers", "schemas")
    before, levels = list(root.handlers), [logging.getLogger(name).level for name in names]
    monkeypatch.setenv("RAYWARD_LOG", "json")
    yield
    logging.captureWarnings(False)
    root.handlers[:] = before
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


def test_a_process_logs_objects_once_it_is_told_to(
    in_json: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logs()
    configure_logs()
    logging.getLogger("cluster.shards").info("shard done")
    logging.getLogger("urllib3").info("too small to tell")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == "shard done"


def test_progress_is_told_in_objects_and_without_a_bar(in_json: None) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress(stream, clock=iter(range(0, 1000, 20)).__next__)
    progress.start("clean", 100, "images")
    with log_fields({"run_id": "R"}):
        progress.advance(40, 10)
        progress.note("shard 00001 has stood still")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["job"], first["run_id"], first["level"]) == ("clean", "R", "info")
    assert (first["ended"], first["total"], first["rejected"]) == (50, 100, 10)
    assert first["per_s"] == 2.5
    assert second["message"] == "clean: shard 00001 has stood still"


def test_the_command_tells_its_errors_in_objects(
    in_json: None, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--log-format", "json", "status", "--lake", f"{tmp_path}/none"])
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().err)
    assert told["level"] == "error"
    assert told["message"].startswith("There is no lake")


def test_the_format_is_text_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAYWARD_LOG", raising=False)
    assert log_format() is LogFormat.TEXT
    monkeypatch.setenv("RAYWARD_LOG", "JSON")
    assert log_format() is LogFormat.JSON
    monkeypatch.setenv("RAYWARD_LOG", "xml")
    with pytest.raises(UsageError, match="got xml.*text, json"):
        log_format()
