"""`submit`, `jobs`, `logs`, `stop`: what they ask for, and what they tell."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from ray.job_submission import JobStatus

from cluster.cli import remote, submitting
from cluster.lake.store import LakeStore
from cluster.submission.client import LAKE_NOTE, RayJob
from cluster.submission.order import Order
from cluster.submission.record import Outcome, record_outcome, record_start
from cluster.submission.submitting import Submitted, Wish
from schemas.errors import RunError
from schemas.jobfile import JobFile
from schemas.plan import Counts
from schemas.protocols import Report
from tests.cluster.cli.conftest import Call

ID = "job-20261121-a1"
BEGAN = datetime(2026, 11, 21, 3, 15, tzinfo=UTC)
INGEST = Report("ingest", "kermany", "up_to_date", counts=Counts(up_to_date=3), unit="files")
CLEAN = Report("clean", "clean", "up_to_date", counts=Counts(up_to_date=2, rejected=1))
DETACH = KeyboardInterrupt


@dataclass
class FakeCluster:
    """A cluster of listed jobs."""

    known: list[RayJob] = field(default_factory=list)
    stops: bool = True

    def jobs(self) -> list[RayJob]:
        return self.known

    def job(self, submission_id: str) -> RayJob | None:
        return next((one for one in self.known if one.submission_id == submission_id), None)

    def logs(self, _submission_id: str) -> str:
        return "one\ntwo\n"

    def stop(self, submission_id: str) -> bool:
        job = self.job(submission_id)
        assert job is not None
        if self.stops and not job.is_over:
            self.known = [replace(job, status=JobStatus.STOPPED)]
        return not job.is_over

    def wait(self, submission_id: str, _patience_s: float) -> RayJob | None:
        return self.job(submission_id)


def job(status: JobStatus = JobStatus.RUNNING, lake: str = "") -> RayJob:
    return RayJob(ID, status, BEGAN, None, {LAKE_NOTE: lake} if lake else {})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster([job()])
    for module in (remote, submitting):
        monkeypatch.setattr(module, "connect", lambda address, allow_no_token: fake)
    return fake


@dataclass
class FakeSubmission:
    """What is submitted, what it logs, and how it ends."""

    found: Submitted = field(default_factory=lambda: Submitted(ID, attached=False))
    outcome: Outcome | None = field(default_factory=lambda: Outcome(0, (INGEST, CLEAN)))
    log: str = "at work\n"
    interrupted: bool = False
    gone: bool = False
    wishes: list[Wish] = field(default_factory=list)
    followed: int = 0

    def submit(self, _cluster: object, wish: Wish, say: Callable[[str], object]) -> Submitted:
        self.wishes.append(wish)
        say("Package: 3 files.")
        return self.found

    def follow(self, _cluster: object, _id: str, write: Callable[[str], object]) -> bool:
        self.followed += 1
        write(self.log)
        if self.interrupted:
            raise DETACH
        if self.gone:
            raise RunError("The cluster can't be reached")
        return True


@pytest.fixture
def submission(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FakeSubmission:
    fake = FakeSubmission()
    LakeStore.open(str(tmp_path / "lake"), create=True)
    monkeypatch.setattr("cluster.submission.submitting.submit", fake.submit)
    monkeypatch.setattr("cluster.submission.following.follow", fake.follow)
    monkeypatch.setattr(
        "cluster.submission.following.await_outcome", lambda store, submission_id: fake.outcome
    )
    return fake


def test_options_reach_the_submission(
    call: Call, submission: FakeSubmission, job_file: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "sub").mkdir()
    monkeypatch.setenv("PLACE", "here")
    ended = call(
        "submit", job_file, "--only", "clean", "--name", "my night", "--working-dir", "sub",
        "--env", "PLACE", "--env", "A=b=c", "--night", "2026-11-20", "--autoscaling",
        "--no-preflight", "--set", "clean.min_side=50", "--lake", "lake",
    )  # fmt: skip
    assert ended.code == 0
    (wish,) = submission.wishes
    assert (wish.job, wish.only, wish.night) == ("my-night", ("clean",), date(2026, 11, 20))
    assert (wish.here, wish.working_dir) == (tmp_path, tmp_path / "sub")
    assert (wish.env, wish.autoscaling) == ({"PLACE": "here", "A": "b=c"}, True)
    assert (wish.preflight, wish.job_file.lake) == (False, "lake")
    assert wish.job_file.jobs[1].model_dump()["min_side"] == 50


def test_the_log_and_the_end_are_shown(
    call: Call, submission: FakeSubmission, job_file: str
) -> None:
    ended = call("submit", job_file)
    assert (ended.code, ended.out) == (0, "at work\n")
    assert f"Submitted {ID}." in ended.err
    assert f"{ID} ended with exit code 0." in ended.err
    submission.found = Submitted(ID, attached=True)
    assert f"Attached to {ID}." in call("submit", job_file).err


def test_json_is_all_that_stdout_holds(
    call: Call, submission: FakeSubmission, job_file: str
) -> None:
    submission.outcome = Outcome(5, (INGEST,), "error: held")
    ended = call("submit", job_file, "--json")
    objects = [json.loads(line) for line in ended.out.splitlines()]
    assert [(one["name"], one["status"]) for one in objects] == [
        ("kermany", "up_to_date"),
        ("clean", "failed"),
    ]
    assert objects[0]["counts"]["input"] == 3
    assert ended.code == 5
    assert "at work" in ended.err
    assert "error: held" in ended.err


def test_an_uncertain_end_is_a_failure_that_says_how_to_go_on(
    call: Call, submission: FakeSubmission, job_file: str
) -> None:
    submission.outcome = None
    ended = call("submit", job_file)
    assert ended.code == 1
    assert "its driver is gone. Submit it again" in ended.err


def test_the_lake_may_know_of_a_cluster_that_is_gone(
    call: Call, submission: FakeSubmission, job_file: str
) -> None:
    submission.gone = True
    ended = call("submit", job_file)
    assert ended.code == 0
    assert "can't be reached" in ended.err


def test_what_ray_holds_for_over_is_not_followed_but_awaited(
    call: Call, submission: FakeSubmission, job_file: str
) -> None:
    submission.found = Submitted(ID, attached=True, known_to_ray=False)
    assert call("submit", job_file).code == 0
    assert submission.followed == 0


def test_ctrl_c_detaches_and_says_how_to_stop(
    call: Call, submission: FakeSubmission, cluster: FakeCluster, job_file: str
) -> None:
    submission.interrupted = True
    for ended in (call("submit", job_file), call("logs", "-f", ID)):
        assert ended.code == 130
        assert f"Detached; {ID} goes on." in ended.err
        assert f"rayward stop {ID}" in ended.err
        assert f"rayward logs -f {ID}" in ended.err
    assert not cluster.known[0].is_over


def test_without_waiting_the_id_is_all_there_is(
    call: Call, submission: FakeSubmission, job_file: str
) -> None:
    ended = call("submit", job_file, "--no-wait")
    assert (ended.code, ended.out) == (0, f"{ID}\n")
    assert submission.followed == 0
    told = json.loads(call("submit", job_file, "--no-wait", "--json").out)
    assert told == {"submission_id": ID, "attached": False}


@pytest.mark.usefixtures("submission")
@pytest.mark.parametrize("text", ["UNSET_HERE", "=x"])
def test_a_variable_without_a_value_is_refused(call: Call, job_file: str, text: str) -> None:
    ended = call("submit", job_file, "--env", text)
    assert ended.code == 2
    assert "has no value" in ended.err


@pytest.mark.usefixtures("submission")
def test_a_wrong_job_file_is_told_before_the_cluster_is_asked(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "connect", lambda *_: pytest.fail("too early"))
    (tmp_path / "wrong.yaml").write_text("lake: ./lake\njobs:\n  - {kind: clean, datset: a}\n")
    assert call("submit", "wrong.yaml").code == 2


def test_jobs_tells_what_the_lake_knows(call: Call, cluster: FakeCluster, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    store = LakeStore.open(lake, create=True)
    record_start(store.storage, Order(ID, JobFile(lake, (), "job.yaml")))
    cluster.known = [job(JobStatus.FAILED, lake)]
    (told,) = map(json.loads, call("jobs", "--json").out.splitlines())
    assert (told["ray_status"], told["outcome"], told["exit_code"]) == ("FAILED", "uncertain", None)
    record_outcome(store.storage, ID, Outcome(4, (), "error: held"))
    (told,) = map(json.loads, call("jobs", "--json").out.splitlines())
    assert told == {
        "submission_id": ID,
        "ray_status": "FAILED",
        "outcome": "exit code 4",
        "exit_code": 4,
        "started_at": "2026-11-21T03:15:00Z",
        "ended_at": None,
        "lake": lake,
    }
    assert "exit code 4" in call("jobs").out
    cluster.known = [job(JobStatus.FAILED, "/no/such/lake"), job(JobStatus.RUNNING, lake)]
    outcomes = [json.loads(line)["outcome"] for line in call("jobs", "--json").out.splitlines()]
    assert outcomes == ["uncertain", ""]
    assert len(call("jobs", "--json", "--limit", "1").out.splitlines()) == 1
    cluster.known = []
    assert call("jobs").err == "No job yet.\n"


@pytest.mark.usefixtures("cluster")
def test_logs_are_printed(call: Call) -> None:
    assert call("logs", ID).out == "one\ntwo\n"


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("command", ["logs", "stop"])
def test_an_unknown_job_is_told(call: Call, command: str) -> None:
    ended = call(command, "nobody-20261121-a1")
    assert ended.code == 2
    assert "knows no such job" in ended.err
    assert "rayward jobs" in ended.err


def test_stop_stops(call: Call, cluster: FakeCluster) -> None:
    ended = call("stop", ID)
    assert (ended.code, cluster.known[0].status) == (0, JobStatus.STOPPED)
    assert f"Stopped {ID}" in ended.err
    assert f"{ID} was not running (STOPPED)" in call("stop", ID).err
    assert json.loads(call("stop", ID, "--json").out) == {"submission_id": ID, "stopped": False}


def test_a_job_that_does_not_end_is_told(call: Call, cluster: FakeCluster) -> None:
    cluster.stops = False
    ended = call("stop", ID)
    assert ended.code == 1
    assert "does not end" in ended.err


@pytest.mark.usefixtures("job_file")
@pytest.mark.parametrize(
    "arguments", [("submit", "job.yaml"), ("jobs",), ("logs", ID), ("stop", ID)]
)
def test_a_cluster_beyond_this_machine_wants_a_token(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    ended = call(*arguments, "--address", "http://10.0.0.7:8265")
    assert ended.code == 2
    assert "no token for a cluster beyond this machine" in ended.err
    assert "--allow-no-token" in ended.err
