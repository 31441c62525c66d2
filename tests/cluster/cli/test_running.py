"""`rayward run` and `plan`: what they print where, and how they end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.progress import Progress
from schemas.errors import LeaseHeld, SourceError
from schemas.plan import Counts
from schemas.protocols import Report
from tests.cluster.cli.conftest import Call, FakeRunner

INGESTED = Report(
    kind="ingest",
    name="kermany",
    status="published",
    run_id="20261121T080000Z-1",
    counts=Counts(done=1200, rejected=34),
    unit="files",
    seconds={"plan": 0.25, "shards": 2.0},
    facts={"exact_duplicates": 32},
)
CLEANED = Report(
    kind="clean",
    name="clean",
    status="up_to_date",
    counts=Counts(up_to_date=1168),
    seconds={"plan": 0.1234},
)


def test_each_job_ends_with_a_summary(call: Call, runner: FakeRunner, job_file: str) -> None:
    runner.reports = [INGESTED, CLEANED]
    ended = call("run", job_file)
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0] == ("kermany (ingest): published in 2.2 s, 617 files/s, run 20261121T080000Z-1")
    assert lines[1] == "  1,234 files: 1,200 done, 34 rejected"
    assert lines[2] == "  exact duplicates 32"
    assert "clean: nothing to do, everything is up to date (0.1 s)" in lines


def test_json_is_one_object_a_job_and_nothing_else(
    call: Call, runner: FakeRunner, job_file: str
) -> None:
    def chatter(progress: object) -> None:
        print("from a library")
        os.write(1, b"from C\n")

    runner.reports, runner.during = [INGESTED, CLEANED], chatter
    ended = call("run", job_file, "--json")
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {
            "kind": "ingest",
            "name": "kermany",
            "run_id": "20261121T080000Z-1",
            "status": "published",
            "counts": {
                "input": 1234, "done": 1200, "up_to_date": 0, "rejected": 34,
                "held": 0, "deferred": 0, "gone": 0,
            },
            "seconds": {"plan": 0.25, "shards": 2.0},
        },
        {
            "kind": "clean",
            "name": "clean",
            "run_id": None,
            "status": "up_to_date",
            "counts": {
                "input": 1168, "done": 0, "up_to_date": 1168, "rejected": 0,
                "held": 0, "deferred": 0, "gone": 0,
            },
            "seconds": {"plan": 0.123},
        },
    ]  # fmt: skip
    assert "from a library" in ended.err
    assert "from C" in ended.err


def test_stdout_is_given_back(call: Call, runner: FakeRunner, job_file: str) -> None:
    runner.reports = [INGESTED, CLEANED]
    call("run", job_file, "--json")
    assert "published in" in call("run", job_file).out


@pytest.mark.parametrize("code", [0, 3, 4])
def test_the_exit_code_is_the_runners(
    call: Call, runner: FakeRunner, job_file: str, code: int
) -> None:
    runner.reports, runner.code = [INGESTED, CLEANED], code
    assert call("run", job_file).code == code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SourceError("The archive is not there", where="data"), 1, "archive is not there (data)"),
        (LeaseHeld("Another run holds this work", got="host-1, pid 7"), 5, "host-1, pid 7"),
        (ZeroDivisionError("division by zero"), 1, "error: ZeroDivisionError at "),
    ],
)
def test_a_failed_job_ends_the_command(
    call: Call, runner: FakeRunner, job_file: str, error: Exception, code: int, said: str
) -> None:
    runner.reports = [INGESTED, error, CLEANED]
    ended = call("run", job_file, "--json")
    assert ended.code == code
    assert said in ended.err
    assert "Traceback" not in ended.err
    first, second = (json.loads(line) for line in ended.out.splitlines())
    assert first["status"] == "published"
    assert (second["name"], second["status"], second["run_id"]) == ("clean", "failed", None)
    assert set(second) == set(first)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_job_that_fails_after_a_report_of_its_own_has_the_object(
    call: Call, runner: FakeRunner, job_file: str, command: str
) -> None:
    runner.reports = [INGESTED, INGESTED, SourceError("The archive is not there")]
    runner.turns = ["kermany"] * 3
    ended = call(command, job_file, "--json")
    assert ended.code == 1
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert [(one["name"], one["status"]) for one in told] == [
        ("kermany", "published"), ("kermany", "published"), ("kermany", "failed"),
    ]  # fmt: skip


def test_a_traceback_is_shown_on_request(
    call: Call, runner: FakeRunner, job_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.reports = [ZeroDivisionError("division by zero")]
    assert "RAYWARD_TRACEBACK=1" in call("run", job_file).err
    monkeypatch.setenv("RAYWARD_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        call("run", job_file)


def test_a_secret_in_an_error_is_masked(call: Call, runner: FakeRunner, job_file: str) -> None:
    runner.reports = [SourceError("can't open", where="s3://key:hidden@bucket/x")]
    assert "s3://***@bucket/x" in call("run", job_file).err


def test_of_a_foreign_error_only_class_and_place_are_told(
    call: Call, runner: FakeRunner, job_file: str
) -> None:
    runner.reports = [OSError("can't open /archive/MUELLER_ANNA/1.dcm")]
    ended = call("run", job_file)
    assert re.match(r"job kermany \(ingest\):\nerror: OSError at \w+\.py:\d+\n", ended.err)
    assert "MUELLER" not in ended.err
    assert ended.code == 1


def test_an_interrupt_says_that_the_run_goes_on(
    call: Call, runner: FakeRunner, job_file: str
) -> None:
    runner.reports = [KeyboardInterrupt()]
    ended = call("run", job_file)
    assert ended.code == 130
    assert "goes on where this run stopped" in ended.err


def test_options_reach_the_job_file_and_the_runner(
    call: Call, runner: FakeRunner, job_file: str
) -> None:
    runner.reports = [CLEANED]
    call("run", job_file, "--profile", "smoke", "--set", "clean.min_side=7", "--only", "clean",
         "--address", "ray://host:1")  # fmt: skip
    call("run", job_file, "--lake", "elsewhere", "--profile", "smoke")
    (first, only, address), (second, _, _) = runner.asked
    assert (first.lake, only, address) == ("./smoke", ("clean",), "ray://host:1")
    assert first.jobs[1].min_side == 7
    assert second.lake == "elsewhere"


def test_too_many_rejects_name_the_query_that_explains(
    call: Call, runner: FakeRunner, job_file: str
) -> None:
    runner.reports, runner.code = (
        [Report("ingest", "kermany", "published", "R", Counts(3, 0, 1))],
        3,
    )
    ended = call("run", job_file, "--only", "kermany")
    assert "rejects are 25.0%, above max_reject_share 5.0%" in ended.out
    assert "FROM rejects WHERE run_id = 'R'" in ended.out


def test_a_held_run_names_the_decision(call: Call, runner: FakeRunner, job_file: str) -> None:
    runner.reports, runner.code = [Report("clean", "clean", "held", "R", Counts(held=3))], 4
    assert "rayward publish R" in call("run", job_file).out


def test_plan_says_what_would_be_done(call: Call, runner: FakeRunner, job_file: str) -> None:
    planned = Report("ingest", "kermany", "planned", counts=Counts(5, 2), unit="files")
    waiting = Report("clean", "clean", "waiting", facts={"waits for": "kermany"})
    runner.reports = [planned, waiting]
    ended = call("plan", job_file)
    assert ended.code == 0
    assert "kermany (ingest): would work on 5 files" in ended.out
    assert "7 files: 5 done, 2 up to date" not in ended.out
    assert "7 files: 5 to do, 2 up to date" in ended.out
    assert "waits for kermany" in ended.out
    ended = call("plan", job_file, "--json")
    assert [json.loads(line)["status"] for line in ended.out.splitlines()] == ["planned", "waiting"]


def test_progress_is_silent_beside_json(call: Call, runner: FakeRunner, job_file: str) -> None:
    def work(progress: object) -> None:
        assert isinstance(progress, Progress)
        progress.start("clean", 10, "images")
        progress.note("epoch 1")

    runner.during, runner.reports = work, [CLEANED]
    assert "epoch 1" in call("run", job_file).err
    assert call("run", job_file, "--json").err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "missing.yaml"),
        ("plan", "missing.yaml"),
        ("run",),
        ("run", "job.yaml", "--only", "nobody"),
        ("run", "job.yaml", "--profile", "nobody"),
        ("run", "job.yaml", "--set", "nobody.x=1"),
        ("run", "job.yaml", "--lake", "gs://x"),
        ("run", "job.yaml", "--no-such-option"),
        ("no-such-command",),
    ],
)
def test_a_wrong_command_exits_2(
    call: Call, runner: FakeRunner, job_file: str, arguments: tuple[str, ...]
) -> None:
    ended = call(*arguments)
    assert ended.code == 2
    assert ended.err
    assert ended.out == ""


TEN = """\
lake: s3://key:hidden@bucket
jobs:
  - kind: ingest
    name: kermany
    source: ${NO_SUCH_VARIABLE}
  - kind: clean
    dataset: kermany
    min_side: -1
    min_side: 100
    phash:
      max_distanc: 4
  - kind: trian
    dataset: kermany
  - kind: train
    dataset: kermany
    split: kermany split
    epochs: many
  - kind: clean
    dataset: kermany
"""


@pytest.mark.parametrize("command", ["run", "plan"])
def test_ten_mistakes_are_told_before_ray_is_even_imported(tmp_path: Path, command: str) -> None:
    (tmp_path / "job.yaml").write_text(TEN)
    code = (
        "import atexit, sys\n"
        "from cluster.cli import main\n"
        "atexit.register(lambda: print('ray' in sys.modules, file=sys.stdout))\n"
        "main(sys.argv[1:])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code, command, "job.yaml", "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == "False\n"
    lines = done.stderr.splitlines()
    assert lines[-1] == "10 mistakes in the job file"
    places = [line.split(":")[1] for line in lines[:-1]]
    assert places == ["1", "5", "8", "9", "11", "12", "14", "16", "17", "18"]
    assert all("allowed: " in line for line in lines[:-1])
    assert "hidden" not in done.stderr
