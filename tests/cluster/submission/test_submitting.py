"""Submitting by a cluster's and a lake's word: names, attachment, attempts, refusals."""

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

import pytest
from pydantic import SecretStr
from ray.job_submission import JobStatus

from cluster.lake.leases import hold
from cluster.lake.store import LakeStore
from cluster.nights.night import Night
from cluster.submission import following, submitting
from cluster.submission.access import Access
from cluster.submission.client import CHECK_NOTE, LAKE_NOTE, ORDER_NOTE, JobOrder, RayJob
from cluster.submission.naming import SubmissionId
from cluster.submission.order import Order
from cluster.submission.probe import MARK
from cluster.submission.record import record_start, submission_key
from cluster.submission.submitting import Wish, submit
from cluster.submission.witness import Question, look
from schemas.errors import RunError, UsageError
from schemas.jobfile import load

NIGHT = date(2026, 11, 21)
FIRST = SubmissionId("night", "20261121", 1)
HERE = Access("http://127.0.0.1:8265", None)


@dataclass
class FakeCluster:
    """A cluster of one node that lists, takes and forgets jobs."""

    access: Access = HERE
    known: dict[str, RayJob] = field(default_factory=dict)
    packages: dict[str, dict[str, bytes]] = field(default_factory=dict)
    orders: dict[str, JobOrder] = field(default_factory=dict)
    cpus: float = 2
    version: str = field(default_factory=lambda: __import__("ray").__version__)
    taken: list[str] = field(default_factory=list)
    """Ids that somebody else takes at the moment of submission."""
    said: dict[str, str] = field(default_factory=dict)

    def ray_version(self) -> str:
        return self.version

    def jobs(self) -> list[RayJob]:
        return list(self.known.values())

    def job(self, submission_id: str) -> RayJob | None:
        return self.known.get(submission_id)

    def submit(self, submission_id: str, order: JobOrder) -> bool:
        if submission_id in self.taken:
            self.taken.remove(submission_id)
            self.put(submission_id, JobStatus.RUNNING, dict(order.metadata))
            return False
        with zipfile.ZipFile(order.package) as package:
            found = {name: package.read(name) for name in package.namelist()}
        self.packages[submission_id], self.orders[submission_id] = found, order
        over = CHECK_NOTE in order.metadata
        self.put(submission_id, JobStatus.SUCCEEDED if over else JobStatus.RUNNING, order.metadata)
        if over:
            question = Question.from_dict(json.loads(found[".rayward/question.json"]))
            entry = {"address": "10.0.0.1", "cpus": self.cpus, "gpus": 0.0, "error": ""}
            answer = asdict(look(question))
            self.said[submission_id] = f"noise\n{MARK}{json.dumps([{**entry, 'answer': answer}])}\n"
        return True

    def wait(self, submission_id: str, patience_s: float) -> RayJob | None:
        return self.job(submission_id)

    def logs(self, submission_id: str) -> str:
        return self.said[submission_id]

    def put(self, submission_id: str, status: JobStatus, notes: object = None) -> None:
        metadata = dict(notes) if isinstance(notes, dict) else {}
        self.known[submission_id] = RayJob(submission_id, status, None, None, metadata)

    def end(self, submission_id: str, status: JobStatus) -> None:
        self.known[submission_id] = replace(self.known[submission_id], status=status)

    @property
    def submitted(self) -> list[str]:
        return [one for one in self.orders if "-check-" not in one]


@pytest.fixture
def wish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wish:
    monkeypatch.setenv("RAYWARD_KEY_FILE", str(tmp_path / "key"))
    work = tmp_path / "work"
    (work / "images").mkdir(parents=True)
    (work / "images/a.png").write_bytes(b"pixels")
    (work / "meta.csv").write_text("path,patient\n")
    (work / "night.yaml").write_text(
        "lake: ./lake\njobs:\n"
        "  - {kind: ingest, name: a, source: ./images, metadata: {file: ./meta.csv}}\n"
    )
    return Wish(load(work / "night.yaml"), "night", work, work, night=NIGHT)


def tell(wish: Wish, cluster: FakeCluster) -> tuple[str, bool, bool]:
    found = submit(cluster, wish, lambda _text: None)  # type: ignore[arg-type]
    return found.submission_id, found.attached, found.known_to_ray


def test_a_job_file_is_packed_checked_and_submitted(wish: Wish) -> None:
    cluster, said = FakeCluster(), []
    found = submit(cluster, wish, said.append)  # type: ignore[arg-type]
    assert (found.submission_id, found.attached) == ("night-20261121-a1", False)
    (check, real) = cluster.orders
    assert check.startswith("night-20261121-a1-check-")
    package = cluster.packages[real]
    assert sorted(package) == [
        ".rayward/order.json", ".rayward/question.json", "meta.csv", "night.yaml",
    ]  # fmt: skip
    order = Order.from_bytes(package[".rayward/order.json"])
    (job,) = order.job_file.jobs
    assert job.model_dump()["source"] == str(wish.here / "images")
    assert job.model_dump()["metadata"]["file"] == "meta.csv"
    assert (order.job_file.lake, order.night) == (str(wish.here / "lake"), NIGHT)
    notes = cluster.orders[real].metadata
    assert notes == {LAKE_NOTE: str(wish.here / "lake"), ORDER_NOTE: order.fingerprint}
    assert "cluster.submission.driver" in cluster.orders[real].entrypoint
    assert cluster.orders[real].env == {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
    # The nonce is gone again.
    assert not list(Path(wish.here, "lake").rglob("_preflight/*"))
    assert any("1 nodes, 2 CPUs, 0 GPUs" in one for one in said)
    named = "sources, targets and lakes of the job file, and files of secrets"
    assert f"  left out: 3 files, 0.0 MiB: {named}" in said  # the image; lake.json, nonce


def test_what_runs_already_is_attached_to(wish: Wish) -> None:
    cluster = FakeCluster()
    assert tell(wish, cluster) == ("night-20261121-a1", False, True)
    assert tell(wish, cluster) == ("night-20261121-a1", True, True)
    assert cluster.submitted == ["night-20261121-a1"]


def test_another_file_under_the_name_of_one_that_runs_is_refused(wish: Wish) -> None:
    cluster = FakeCluster()
    tell(wish, cluster)
    other = replace(wish, only=("a",))
    with pytest.raises(UsageError, match="asks for something else") as refused:
        tell(other, cluster)
    assert "--name" in str(refused.value)
    assert "rayward stop night-20261121-a1" in str(refused.value)
    assert tell(replace(other, job="mine"), cluster)[0] == "mine-20261121-a1"


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.STOPPED, JobStatus.SUCCEEDED])
def test_what_ended_is_submitted_as_the_next_attempt(wish: Wish, status: JobStatus) -> None:
    cluster = FakeCluster()
    tell(wish, cluster)
    cluster.end("night-20261121-a1", status)
    assert tell(wish, cluster) == ("night-20261121-a2", False, True)


def test_an_attempt_the_cluster_forgot_counts_all_the_same(wish: Wish) -> None:
    tell(wish, FakeCluster())
    store = LakeStore.open(str(wish.here / "lake"))
    record_start(store.storage, Order("night-20261121-a7", wish.job_file))
    assert tell(wish, FakeCluster()) == ("night-20261121-a8", False, True)
    tomorrow = replace(wish, night=date(2026, 11, 22))
    assert tell(tomorrow, FakeCluster())[0] == "night-20261122-a1"


def test_a_driver_that_lives_is_attached_to_whatever_ray_says(wish: Wish) -> None:
    cluster = FakeCluster()
    tell(wish, cluster)
    cluster.end("night-20261121-a1", JobStatus.FAILED)
    storage = LakeStore.open(str(wish.here / "lake")).storage
    with hold(storage, submission_key(FIRST)):
        assert tell(wish, cluster) == ("night-20261121-a1", True, False)
    assert tell(wish, cluster)[0] == "night-20261121-a2"


def test_a_driver_that_lives_for_another_order_is_not_attached_to(wish: Wish) -> None:
    cluster = FakeCluster()
    tell(wish, cluster)
    order = Order.from_bytes(cluster.packages["night-20261121-a1"][".rayward/order.json"])
    other = replace(wish, only=("a",))
    store = LakeStore.open(str(wish.here / "lake"))
    cluster.end("night-20261121-a1", JobStatus.FAILED)
    with hold(store.storage, submission_key(FIRST)):
        with pytest.raises(UsageError, match="asks for something else"):
            tell(other, cluster)  # by what Ray noted of the job
        record_start(store.storage, order)
        with pytest.raises(UsageError, match="asks for something else.*night-20261121-a1") as no:
            tell(other, FakeCluster())  # by what the lake has, as the cluster forgot
        assert "wait for its end" in str(no.value)
        assert tell(wish, FakeCluster()) == ("night-20261121-a1", True, False)


def test_it_attaches_to_the_attempt_whose_driver_lives(wish: Wish) -> None:
    cluster = FakeCluster()
    tell(wish, cluster)
    order = Order.from_bytes(cluster.packages["night-20261121-a1"][".rayward/order.json"])
    store = LakeStore.open(str(wish.here / "lake"))
    record_start(store.storage, order)
    # The second attempt waited for the first one's driver, and gave up.
    cluster.put("night-20261121-a2", JobStatus.FAILED, {ORDER_NOTE: order.fingerprint})
    cluster.end("night-20261121-a1", JobStatus.FAILED)
    with hold(store.storage, submission_key(FIRST)):
        assert tell(wish, cluster) == ("night-20261121-a1", True, False)


def test_id_and_order_name_one_night_even_over_midnight(
    wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = iter(range(21, 31))

    class Passing:
        @staticmethod
        def begin(_spec: object, on: date | None = None, **_clock: object) -> Night:
            return Night(on or date(2026, 11, next(days)), None)

    monkeypatch.setattr(submitting, "Night", Passing)
    cluster = FakeCluster()
    assert tell(replace(wish, night=None), cluster)[0] == "night-20261121-a1"
    package = cluster.packages["night-20261121-a1"]
    assert Order.from_bytes(package[".rayward/order.json"]).night == date(2026, 11, 21)


def test_the_token_does_not_travel_with_the_package(
    wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "5e" * 32
    cluster = FakeCluster(access=replace(HERE, token=SecretStr(token)))
    (wish.here / "mine").write_text(token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(wish.here / "mine"))
    tell(wish, cluster)
    assert "mine" not in cluster.packages["night-20261121-a1"]
    (wish.here / "copy").write_text(token)
    with pytest.raises(UsageError, match="holds the cluster's token"):
        tell(replace(wish, job="other"), cluster)


def test_of_two_who_submit_at_once_one_attaches(wish: Wish) -> None:
    cluster = FakeCluster(taken=["night-20261121-a1"])
    assert tell(wish, cluster) == ("night-20261121-a1", True, True)
    assert cluster.submitted == []


def test_nothing_is_submitted_to_a_cluster_that_does_not_fit(wish: Wish) -> None:
    cluster = FakeCluster(cpus=0)
    with pytest.raises(UsageError, match="room for 0"):
        tell(wish, cluster)
    assert cluster.submitted == []
    assert tell(replace(wish, autoscaling=True), cluster)[0] == "night-20261121-a1"


def test_another_version_of_ray_is_told_before_anything_is_asked(wish: Wish) -> None:
    cluster = FakeCluster(version="2.9.0")
    with pytest.raises(UsageError, match=r"another version of Ray.*got 2\.9\.0"):
        tell(wish, cluster)
    assert cluster.orders == {}
    assert tell(replace(wish, preflight=False), cluster)[0] == "night-20261121-a1"


def test_a_cluster_without_rayward_is_told(wish: Wish, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    monkeypatch.setattr(cluster, "logs", lambda _: "x\npython: No module named cluster\n")
    with pytest.raises(UsageError, match="`python` has no Rayward") as refused:
        tell(wish, cluster)
    assert "RAYWARD_PYTHON" in str(refused.value)
    monkeypatch.setattr(cluster, "logs", lambda _: "Traceback: boom with /secret/path\n")
    with pytest.raises(RunError, match="could not be asked") as failed:
        tell(wish, cluster)
    assert "secret" not in str(failed.value)
    answer = "noise\nerror: ConnectionError at worker.py:7\n"
    monkeypatch.setattr(cluster, "logs", lambda _: answer)
    with pytest.raises(RunError, match=r"could not be asked: got ConnectionError at worker.py:7"):
        tell(wish, cluster)


def test_a_lake_that_is_not_here_is_none_for_a_cluster_elsewhere(wish: Wish) -> None:
    cluster = FakeCluster(access=Access("http://10.0.0.7:8265", None))
    with pytest.raises(UsageError, match="beyond this machine") as refused:
        tell(wish, cluster)
    assert "s3://" in str(refused.value)
    assert not (wish.here / "lake").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("DB_PASSWORD", "x"),
        ("RAY_AUTH_TOKEN", "x"),
        ("PLACE", "s3://key:hunter2@bucket"),
    ],
)
def test_secrets_do_not_travel_as_variables(wish: Wish, name: str, value: str) -> None:
    cluster = FakeCluster()
    with pytest.raises(UsageError, match="secret can't travel") as refused:
        tell(replace(wish, env={name: value}), cluster)
    assert "hunter2" not in str(refused.value)
    assert cluster.orders == {}
    allowed = replace(wish, env={"RAYWARD_KEY_FILE": "/keys/k", "AWS_ENDPOINT_URL": "http://x"})
    tell(allowed, cluster)
    assert cluster.orders["night-20261121-a1"].env["RAYWARD_KEY_FILE"] == "/keys/k"


def test_a_name_that_is_no_job_is_told_before_anything_is_packed(wish: Wish) -> None:
    with pytest.raises(UsageError, match="No such job"):
        tell(replace(wish, only=("nothing",)), FakeCluster())
    assert not (wish.here / "lake").exists()


@dataclass
class FakeTail:
    """A job whose connection breaks: each connection starts at the beginning, and ends early."""

    connections: list[tuple[str, Exception | None]]
    over_after: int
    forgotten: bool = False
    connected: int = 0

    async def tail(self, _submission_id: str) -> AsyncIterator[str]:
        text, error = self.connections[min(self.connected, len(self.connections) - 1)]
        self.connected += 1
        for at in range(0, len(text), 3):
            yield text[at : at + 3]
        if error:
            raise error

    def job(self, submission_id: str) -> RayJob | None:
        if self.forgotten:
            return None
        over = self.connected >= self.over_after
        status = JobStatus.SUCCEEDED if over else JobStatus.RUNNING
        return RayJob(submission_id, status, None, None, {})


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following.time, "sleep", lambda _seconds: None)


def written(found: FakeTail) -> tuple[str, bool]:
    parts: list[str] = []
    append: Callable[[str], object] = parts.append
    known = following.follow(found, "a", append)  # type: ignore[arg-type]
    return "".join(parts), known


@pytest.mark.usefixtures("at_once")
def test_following_goes_on_where_the_connection_ended() -> None:
    breaking = [
        ("one\ntwo\n", RuntimeError("closed")),
        ("one\n", OSError("gone")),
        ("one\ntwo\nthree\n", None),
    ]
    assert written(FakeTail(breaking, over_after=3)) == ("one\ntwo\nthree\n", True)


@pytest.mark.usefixtures("at_once")
def test_following_ends_when_the_cluster_has_forgotten_the_job() -> None:
    assert written(FakeTail([("one\n", None)], over_after=9, forgotten=True)) == ("one\n", False)


@pytest.mark.usefixtures("at_once")
def test_following_gives_up_on_a_cluster_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> RayJob:
        raise UsageError("The cluster can't be reached")

    monkeypatch.setattr(FakeTail, "job", gone)
    found = FakeTail([("", OSError("gone"))], over_after=99)
    with pytest.raises(UsageError, match="can't be reached"):
        written(found)
    assert found.connected > 10


@dataclass
class SilentTail(FakeTail):
    """Connections that say what they have to say, and then nothing, as on a network that died."""

    async def tail(self, submission_id: str) -> AsyncIterator[str]:
        async for chunk in super().tail(submission_id):
            yield chunk
        if self.connected < len(self.connections):
            await asyncio.sleep(3600)


@pytest.mark.usefixtures("at_once")
@pytest.mark.timeout(20)
def test_following_does_not_wait_for_ever_on_a_silent_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "_FIRST_QUIET_S", 0.05)
    silent = [("one\n", None), ("one\ntwo\n", None), ("one\ntwo\nthree\n", None)]
    # It ends while the second connection is silent: the rest is fetched all the same.
    assert written(SilentTail(silent, over_after=2)) == ("one\ntwo\nthree\n", True)


@pytest.mark.usefixtures("at_once")
@pytest.mark.timeout(20)
def test_a_long_silence_of_a_job_that_runs_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_FIRST_QUIET_S", 0.01)
    monkeypatch.setattr(following, "_LONGEST_QUIET_S", 0.01)
    found = SilentTail([("", None)] * 30 + [("end\n", None)], over_after=31)
    blips = iter([*range(20), None])

    def job(tail: FakeTail, submission_id: str) -> RayJob | None:
        if next(blips, 0) is None:
            raise UsageError("The cluster can't be reached")  # once, after many silences
        return FakeTail.job(tail, submission_id)

    monkeypatch.setattr(SilentTail, "job", job)
    assert written(found) == ("end\n", True)


@pytest.mark.usefixtures("at_once")
def test_an_output_that_is_closed_ends_following() -> None:
    def closed(_text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        following.follow(FakeTail([("one\n", None)], over_after=9), "a", closed)  # type: ignore[arg-type]
