"""How a run's shards survive deaths: the decisions, on a Ray that only pretends."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ray.exceptions import (
    ActorDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RaySystemError,
    RayTaskError,
)

from cluster import shard_crew, shard_run, slots
from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from cluster.progress import Progress
from cluster.ray_failures import as_ours, is_lost_node, is_memory_kill
from cluster.shard_run import ShardRun
from cluster.shards import ShardOutcome, ShardTask, decode_rows
from schemas.errors import LeakError, RunError, ShardFailed
from schemas.plan import Plan, ShardResult
from schemas.specs.base import Execution
from schemas.tables import rows_of
from tests.cluster.lake.toy import ids

# As Ray 2.60 words them.
KILLED = (
    "The actor died unexpectedly before finishing this task. The actor is dead because its worker "
    "process has died. Worker exit detail: Worker unexpectedly exits with a connection error code "
    "2. End of file. There are some potential root causes. (1) The process is killed by SIGKILL "
    "by OOM killer due to high memory usage. (2) ray stop --force is called."
)
NODE_DIED = "The actor is dead because its node has died. Node Id: 4f2a"
LOW_MEMORY = "Task was killed due to the node running low on memory."


def died(message: str = KILLED) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = message
    return error


Decide = Callable[[list[str]], None]
"""Called with the image ids a process decodes; raises what its death raises."""


@dataclass
class PretendedRay:
    """Runs shards in this process when they are waited for."""

    run: LakeRun
    decide: Decide
    resources: dict[str, float] = field(default_factory=lambda: {"CPU": 2.0})
    finished: list[ShardTask] = field(default_factory=list)
    hired: int = 0
    starts: int = 0
    failing_starts: int = 0

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.resources}]

    def get_max_resources_from_cluster_config(self) -> None:
        return

    def remote(self, kind: type | None = None, **_: object) -> Any:
        return self if kind else lambda kind: self

    def options(self, **_: object) -> Any:
        outer = self

        class Method:
            def __init__(self, call: Callable[..., Any]) -> None:
                self.call = call

            def remote(self, *arguments: Any) -> Callable[[], Any]:
                return lambda: self.call(*arguments)

        class Actor:
            @staticmethod
            def remote(*_: object) -> "Actor":
                outer.hired += 1
                return Actor()

            def __init__(self) -> None:
                self.ready = Method(outer.begin)
                self.run = Method(outer.compute)
                self.try_one = Method(outer.probe)

        return Actor

    def wait(
        self, futures: list[Any], num_returns: int, timeout: float
    ) -> tuple[list[Any], list[Any]]:
        return futures[:1], futures[1:]

    def get(self, future: Callable[[], Any], timeout: float | None = None) -> Any:
        return future()

    def kill(self, _: object) -> None:
        return

    def begin(self, *_: object) -> str:
        self.starts += 1
        if self.starts <= self.failing_starts:
            raise died(NODE_DIED)
        return "node"

    def pretend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (shard_run, shard_crew, slots):
            monkeypatch.setattr(module, "ray", self)
        monkeypatch.setattr(slots, "state", self)
        monkeypatch.setattr(shard_run, "forget", lambda run_id: None)

    def probe(self, row: bytes) -> None:
        self.decide(decode_rows(row)["image_id"].to_pylist())

    def compute(self, task: ShardTask) -> ShardOutcome:
        images = decode_rows(task.rows)["image_id"].to_pylist()
        alive = [one for row, one in enumerate(images) if row not in task.condemned]
        self.decide(alive)
        self.finished.append(task)
        rejects = [
            {"image_id": images[row], "stage": "score", "reason": reason.value}
            for row, reason in task.condemned.items()
        ]
        result = ShardResult(
            {"rejects": rows_of("rejects", rejects)}, done=len(alive), rejected=len(rejects)
        )
        self.run.record(task.shard, result)
        return ShardOutcome(len(alive), len(rejects), 0)


IMAGES = ids(8)


def compute(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decide: Decide,
    *,
    kind: str = "score",
    execution: Execution | None = None,
    failing_starts: int = 0,
) -> dict[str, str]:
    """Compute two shards of four images; returns the reason of each reject."""
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    plan = Plan(
        kind=kind,
        name="toy",
        key=("score", "toy"),
        identity={},
        params={},
        inputs=pa.table({"image_id": IMAGES}),
        bounds=(0, 4, 8),
    )
    with store.lease(plan.key):
        planned = store.begin(plan, {})
        run = LakeRun(store.storage, planned.id, resumed=False)
        PretendedRay(run, decide, failing_starts=failing_starts).pretend(monkeypatch)
        with (tmp_path / "log").open("w") as log:
            work = ShardRun(store.root, run, execution or Execution(), Progress(log, quiet=True))
            work.compute(run.pending())
        report = store.commit(planned, {})
    assert report.counts.input == 8
    found = store.query("SELECT image_id, reason FROM rejects").to_pylist()
    return {row["image_id"]: row["reason"] for row in found}


@pytest.mark.parametrize(
    ("shards", "asked", "processes"),
    [(1, None, 1), (2, None, 1), (4, None, 2), (8, None, 2), (2, 2, 2)],
)
def test_a_few_shards_go_to_few_processes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shards: int,
    asked: int | None,
    processes: int,
) -> None:
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    plan = Plan(
        kind="score",
        name="toy",
        key=("score", "toy"),
        identity={},
        params={},
        inputs=pa.table({"image_id": IMAGES}),
        bounds=tuple(range(0, 9, 8 // shards)),
    )
    with store.lease(plan.key):
        run = LakeRun(store.storage, store.begin(plan, {}).id, resumed=False)
        pretended = PretendedRay(run, lambda images: None)
        pretended.pretend(monkeypatch)
        with (tmp_path / "log").open("w") as log:
            execution = Execution(workers=asked)
            work = ShardRun(store.root, run, execution, Progress(log, quiet=True))
            work.compute(run.pending())
    assert (len(pretended.finished), pretended.hired) == (shards, processes)


def test_the_image_that_ends_processes_is_found_and_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(images: list[str]) -> None:
        if IMAGES[5] in images or IMAGES[1] in images:
            raise died()

    assert compute(tmp_path, monkeypatch, poison) == {
        IMAGES[1]: "crashed_worker",
        IMAGES[5]: "crashed_worker",
    }


def test_one_death_alone_condemns_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = []

    def once(images: list[str]) -> None:
        if not deaths:
            deaths.append(images)
            raise died()

    assert compute(tmp_path, monkeypatch, once) == {}


def test_lost_nodes_condemn_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []

    def unlucky(images: list[str]) -> None:
        if IMAGES[0] in images and len(losses) < 6:
            losses.append(images)
            raise died(NODE_DIED)

    assert compute(tmp_path, monkeypatch, unlucky) == {}


def test_processes_whose_nodes_go_before_they_start_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compute(tmp_path, monkeypatch, lambda images: None, failing_starts=9) == {}
    with pytest.raises(ShardFailed, match="before it had begun"):
        compute(tmp_path / "again", monkeypatch, lambda images: None, failing_starts=10)


@pytest.mark.parametrize("error", [ObjectLostError("4f", None, ""), RaySystemError("gone")])
def test_an_answer_that_is_lost_costs_a_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    lost = []

    def lose(images: list[str]) -> None:
        if not lost:
            lost.append(images)
            raise error

    assert compute(tmp_path, monkeypatch, lose) == {}


def test_a_node_that_is_lost_for_ever_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(images: list[str]) -> None:
        raise died(NODE_DIED)

    with pytest.raises(ShardFailed):
        compute(tmp_path, monkeypatch, lost)


@pytest.mark.parametrize("error", [OutOfMemoryError(LOW_MEMORY), died(LOW_MEMORY)])
def test_a_shard_too_large_for_memory_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def too_many(images: list[str]) -> None:
        if len(images) > 1:
            raise error

    assert compute(tmp_path, monkeypatch, too_many) == {}


def test_a_single_image_too_large_for_memory_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def huge(images: list[str]) -> None:
        if IMAGES[6] in images:
            raise OutOfMemoryError(LOW_MEMORY)

    assert compute(tmp_path, monkeypatch, huge) == {IMAGES[6]: "out_of_memory"}


def test_deaths_that_no_image_explains_halve_and_then_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always(images: list[str]) -> None:
        if len(images) != 1:  # the probe decodes one image without harm; the rest dies of itself
            raise died()

    with pytest.raises(ShardFailed, match="ends every process"):
        compute(tmp_path, monkeypatch, lambda images: always([]))


def test_a_shard_that_needs_all_rows_is_never_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(images: list[str]) -> None:
        raise OutOfMemoryError(LOW_MEMORY)

    with pytest.raises(ShardFailed, match="more memory"):
        compute(tmp_path, monkeypatch, too_large, kind="split")


def test_an_exception_is_tried_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised = []

    def hiccup(images: list[str]) -> None:
        if not raised:
            raised.append(images)
            raise RayTaskError("run", "", OSError("disk"))

    assert compute(tmp_path, monkeypatch, hiccup) == {}


def test_an_error_of_ours_comes_through_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def leak(images: list[str]) -> None:
        tried.append(images)
        raise RayTaskError("run", "", LeakError("The split leaks"))

    with pytest.raises(LeakError, match="The split leaks"):
        compute(tmp_path, monkeypatch, leak)
    assert len(tried) == 1


def test_without_a_gpu_a_job_that_wants_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="gpus_per_worker"):
        compute(
            tmp_path, monkeypatch, lambda images: None, execution=Execution(gpus_per_worker=0.5)
        )


def test_whose_fault_a_death_was_is_read_off_rays_words() -> None:
    assert not is_memory_kill(died(KILLED))
    assert not is_lost_node(died(KILLED))
    assert is_memory_kill(died(LOW_MEMORY))
    assert is_lost_node(died(NODE_DIED))


def test_messages_of_others_are_not_repeated() -> None:
    quoting = RayTaskError("run", 'File "/x/workers/ingest.py", line 7, in f', ValueError("Miller"))
    shown = str(as_ours(quoting, "shard 3"))
    assert "Miller" not in shown
    assert "ValueError at ingest.py:7" in shown
