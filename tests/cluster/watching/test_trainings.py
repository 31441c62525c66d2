"""What trainings and trials leave behind for who watches: cost, metrics, log lines."""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster import inline_pool, works
from cluster.inline_pool import InlinePool
from cluster.lake.runs import FINISH, LakeRun
from cluster.lake.store import LakeStore
from cluster.studies import process
from cluster.studies.process import TrialNews
from cluster.studies.watching import Watch
from cluster.train_end import SPENT_FILE, metered, training_ended, with_spent
from cluster.train_order import TrainOrder
from cluster.watching.logs import TOLD
from cluster.watching.meter import Spent, own_gpus
from cluster.watching.metrics import Ended, ShardFigures
from schemas.bundle import CONFIG_FILE, OUTCOME_FILE
from schemas.plan import Counts, Plan, ShardResult
from schemas.protocols import Report, Run
from schemas.specs import JobSpec
from schemas.specs.train import TrainSpec
from schemas.studies import trials_of
from tests.cluster.studies.pretended import Kinds, QuietBoard, study, workplace
from tests.jobs.seeding import bundle_config

SPEC = TrainSpec(dataset="d", split="s", model="lungs", world_size=1)
REJECT = {"uri": "a/3.png", "image_id": "3" * 32, "stage": "train", "reason": "corrupt"}


def planned() -> Plan:
    inputs = pa.table({"image_id": [f"{number:032x}" for number in range(8)]})
    return Plan("train", "train", ("train", "lungs"), {}, {}, inputs, (0, 8))


def made() -> dict[str, bytes]:
    outcome = {"rejects": [REJECT], "history": []}
    config = bundle_config("lungs").to_json()
    return {CONFIG_FILE: config, OUTCOME_FILE: json.dumps(outcome).encode()}


def busy(seconds: float) -> None:
    end_s = time.process_time() + seconds
    while time.process_time() < end_s:
        sum(range(1000))


def test_what_a_training_spent_is_its_runs_cost_and_no_part_of_its_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    ends: list[Ended] = []

    def train(*_: object) -> Mapping[str, bytes]:
        busy(0.2)
        time.sleep(0.2)
        return made()

    monkeypatch.setattr(inline_pool, "train_here", train)
    pool = InlinePool(store.root, pytest.fail, ended=ends.append)
    with store.lease(("train", "lungs")):
        run = store.begin(planned(), {})
        files = pool.train(run, {}, 1)
        assert files == made()
        run.record(run.pending()[0], ShardResult({}, done=7, rejected=1))
        report = store.commit(run, {})
    assert report.counts == Counts(done=7, rejected=1)
    (row,) = store.query("SELECT cost FROM runs").to_pylist()
    assert json.loads(row["cost"]) == report.cost
    assert 0.2 <= report.cost["cpu_s"] < 10 and report.cost["gpu_s"] == 0
    assert report.cost["cpu_s_per_thousand"] == pytest.approx(125 * report.cost["cpu_s"], rel=0.01)
    (end,) = ends
    assert (end.kind, end.done, end.figures.reasons) == ("train", 7, {"corrupt": 1})
    assert 0.4 <= end.figures.seconds["compute"] <= end.figures.wall_s < 20


def test_the_first_of_two_ends_of_a_training_counts(tmp_path: Path) -> None:
    """A driver that dies between the end and the commit has a successor, which trains no more."""
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    with store.lease(("train", "lungs")):
        run = store.begin(planned(), {})
        training_ended(store.root, run, with_spent(made(), Spent(5.0, 2.0, 3.0)), 4.0)
        files, end = training_ended(store.root, run, with_spent(made(), Spent(1.0, 0.5, 1.0)), 1.0)
        assert isinstance(run, LakeRun) and run.pending() == ["00000"]
        cost = run.receipts()[FINISH].cost
    assert cost is not None and (cost.cpu_s, cost.gpu_s) == (5.0, 2.0)
    assert files == made() and end.figures.seconds == {"compute": 1.0}


def test_shards_of_a_trial_are_told_as_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Process:
        def __init__(self, _lake: str, _run: str, _kind: str, _params: object, gpus: float) -> None:
            assert gpus == 0.25

        def run(self, _task: object) -> Any:
            return type("Outcome", (), {"done": 3, "figures": ShardFigures(wall_s=1.5)})

    monkeypatch.setattr(inline_pool, "ShardProcess", Process)
    monkeypatch.setattr(inline_pool, "own_gpus", lambda: 0.25)
    store, ends = LakeStore.open(str(tmp_path / "lake"), create=True), list[Ended]()
    with store.lease(("train", "lungs")):
        run: Run = store.begin(planned(), {})
        InlinePool(store.root, pytest.fail, ended=ends.append).run_shards(run, SPEC.execution)
    assert ends == [Ended("train", 3, ShardFigures(wall_s=1.5))]


def test_a_study_counts_what_its_trials_do_by_kind() -> None:
    counted: list[tuple[str, int]] = []
    opened: list[str] = []

    def metrics(kind: str) -> Any:
        opened.append(kind)

        class Metrics:
            @staticmethod
            def shard_ended(done: int, _figures: ShardFigures) -> None:
                counted.append((kind, done))

        return Metrics()

    board: Any = QuietBoard()
    said: list[str] = []
    watch = Watch(board, said.append, metrics=metrics)
    ends = [Ended("train", 7, ShardFigures()), Ended("score", 4, ShardFigures())]
    for end in (*ends, ends[1]):
        board.note(TrialNews("seed=0", end))
    watch.look()
    assert counted == [("train", 7), ("score", 4), ("score", 4)]
    assert opened == ["train", "score"] and said == []


@pytest.fixture
def in_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process log in JSON; the loggers are as before afterwards."""
    root, names = logging.getLogger(), ("cluster", "jobs", "workers", "schemas")
    before, levels = list(root.handlers), [logging.getLogger(name).level for name in names]
    monkeypatch.setenv("RAYWARD_LOG", "json")
    yield
    logging.captureWarnings(False)
    root.handlers[:] = before
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


def test_a_process_that_leads_a_training_logs_with_its_run(
    in_json: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*_: object) -> Mapping[str, bytes]:
        logging.getLogger("cluster.train_here").info("goes on at epoch 3")
        return made()

    monkeypatch.setattr(works, "train_here", train)
    board: Any = QuietBoard()
    fields = {"kind": "train", "job": "nets", "run_id": "R"}
    found = works.train_bundle(TrainOrder("lake", "R", None, {}, 1, board, fields))
    assert set(found) == {*made(), SPENT_FILE}
    line = json.loads(capsys.readouterr().err)
    assert {name: line[name] for name in ("message", *fields)} == {
        "message": "goes on at epoch 3",
        **fields,
    }


def test_a_process_that_makes_trials_logs_with_study_and_trial(
    in_json: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(job: JobSpec) -> Report:
        logging.getLogger("cluster.shards").info("shard done", extra={TOLD: {"of": job.kind}})
        return Report(job.kind, job.name, "published")

    monkeypatch.setattr(process, "KINDS", Kinds(run, set()))
    root = LakeStore.open(str(tmp_path / "lake"), create=True).root
    process.TrialProcess(workplace(root)).run(trials_of(study())[1])
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["job"], one["trial"], one["of"]) for one in lines] == [
        ("s", "seed=1", kind) for kind in ("train", "score", "evaluate")
    ]


def test_a_meter_reads_this_process_alone() -> None:
    spent = json.loads(metered(lambda: busy(0.1) or made())[SPENT_FILE])  # type: ignore[func-returns-value]
    assert 0.1 <= spent["cpu_s"] < 5 and spent["gpu_s"] == 0
    assert Spent(1, 2, 3) + Spent(0.5, 0.25, 0.125) == Spent(1.5, 2.25, 3.125)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(200)
def test_a_process_of_ray_holds_the_gpus_that_it_asked_for() -> None:
    class Holder:
        def held(self) -> float:
            return own_gpus()

    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        task: Any = ray.remote(own_gpus)
        actor: Any = ray.remote(Holder)
        room = placement_group([{"CPU": 1, "GPU": 1}])
        ray.get(room.ready())
        placed = PlacementGroupSchedulingStrategy(room)
        # As shards and trials ask, and as Ray Train asks for its workers.
        asked = [
            task.options(num_gpus=0.5).remote(),
            task.remote(),
            actor.options(num_gpus=0.25).remote().held.remote(),
            actor.options(num_cpus=1, num_gpus=1, scheduling_strategy=placed)
            .remote()
            .held.remote(),
        ]
        assert ray.get(asked) == [0.5, 0.0, 0.25, 1.0]
        assert own_gpus() == 0
    finally:
        ray.shutdown()
