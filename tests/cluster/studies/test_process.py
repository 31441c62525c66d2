"""A process that makes trials: jobs in order, patience with others, what it tells."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from cluster import inline_pool
from cluster.lake.leases import hold
from cluster.lake.store import LakeStore
from cluster.studies import process, together
from cluster.studies.process import TrialEnd, TrialNews, TrialProcess, Unready
from cluster.studies.together import TogetherPool
from cluster.watching.metrics import Ended, ShardFigures
from schemas.errors import CommitConflict, LeaseHeld
from schemas.plan import Counts, Plan
from schemas.protocols import Report
from schemas.specs import JobSpec
from schemas.studies import trials_of
from tests.cluster.studies.pretended import Kinds, QuietBoard, study, workplace


def test_jobs_run_in_order_and_wait_for_others_at_the_same_work(
    tmp_path: Path, use: Callable[..., Kinds]
) -> None:
    ran: list[str] = []

    def run(job: JobSpec) -> Report:
        ran.append(job.kind)
        if job.kind == "score" and ran.count("score") < 3:
            raise LeaseHeld("Another run holds this work")
        if job.kind == "evaluate" and ran.count("evaluate") < 2:
            raise CommitConflict("A commit failed")
        rejected = 3 if job.kind == "score" else 0
        return Report(job.kind, job.name, "published", counts=Counts(7, 0, rejected))

    use(run, set())
    root = str(tmp_path / "lake")
    LakeStore.open(root, create=True)
    end = TrialProcess(workplace(root)).run(trials_of(study())[0])
    assert isinstance(end, TrialEnd)
    assert ran == ["train", "score", "score", "score", "evaluate", "evaluate"]
    assert (end.worked, end.rejecting) == (3, ("score",))


def test_another_at_the_same_work_is_waited_for_as_long_as_it_is_alive(
    tmp_path: Path, use: Callable[..., Kinds], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trials that come out as one model: scoring it may take hours."""
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    waited: list[float] = []
    held = hold(store.storage, ("score", "m"))
    held.__enter__()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 500:
            held.__exit__(None, None, None)

    def run(job: JobSpec) -> Report:
        if job.kind == "score":
            with store.lease(("score", "m")):
                pass
        return Report(job.kind, job.name, "published")

    use(run, set())
    monkeypatch.setattr(process, "_PAUSE_S", 1.0)
    # Not `time.sleep` itself: threads of other tests may sleep as well.
    clock = SimpleNamespace(sleep=sleep, perf_counter=time.perf_counter)
    monkeypatch.setattr(process, "time", clock)
    place = workplace(store.root)
    end = TrialProcess(place).run(trials_of(study())[0])
    assert isinstance(end, TrialEnd) and end.worked == 3
    assert waited[:6] == [1, 2, 4, 8, 15, 15] and len(waited) == 500  # two hours
    (news,) = QuietBoard.fresh(place.board)  # type: ignore[arg-type]
    assert (news.trial, news.epochs) == ("seed=0", 0)
    assert re.match(
        r"waits with `score` for another at this work: process \d+ on .*, last heard of at",
        news.noted,
    )


def test_a_process_that_can_not_open_the_lake_says_so_and_begins_nothing(
    tmp_path: Path, use: Callable[..., Kinds], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(job: JobSpec) -> Report:
        ran.append(job.kind)
        return Report(job.kind, job.name, "up_to_date")

    use(run, set())
    monkeypatch.setattr(process, "_node", lambda: "n7")
    root, trial = str(tmp_path / "lake"), trials_of(study())[0]
    made = TrialProcess(workplace(root))
    end = made.run(trial)
    assert isinstance(end, Unready)
    assert (end.node, str(end.cause).partition(" (")[0]) == ("n7", "There is no lake")

    def unreachable(_: str) -> LakeStore:
        raise ConnectionError("https://user:secret@host/bucket/PATIENT^DOE")

    with monkeypatch.context() as patch:
        patch.setattr(LakeStore, "open", unreachable)
        end = made.run(trial)
    assert isinstance(end, Unready) and ran == []
    assert re.search(r"got ConnectionError at test_process.py:\d+\.", str(end.cause))
    assert "secret" not in str(end.cause) and "DOE" not in str(end.cause)

    LakeStore.open(root, create=True)
    end = made.run(trial)  # the same process can once it is there
    assert isinstance(end, TrialEnd) and ran == ["train", "score", "evaluate"]


class Begun:
    """As much of a run as its training looks at."""

    id = "r"
    plan = Plan("train", "seed", (), {}, {}, pa.table({"x": [1, 2, 3]}), (0, 3))


def test_a_trial_of_several_processes_is_tracked_under_its_study_and_tells_its_warnings(
    tmp_path: Path, use: Callable[..., Kinds], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    end_of_training = Ended("train", 5, ShardFigures())

    def train(lake: str, run: Any, config: Any, workers: int, told: Any) -> dict[str, bytes]:
        asked.append((run.id, config, workers))
        told.hear({"epoch": 0.0, "auc": 0.5})
        told.hear("figures can't be tracked in MLflow")
        told.ended(end_of_training)
        return {"model.safetensors": b""}

    monkeypatch.setattr(together, "train_and_tell", train)

    def run(job: JobSpec) -> Report:
        if job.kind == "train":
            made._pool.train(Begun(), {"experiment": "mine", "training": {}}, 2)  # type: ignore[arg-type]
        return Report(job.kind, job.name, "published", counts=Counts(1))

    use(run, set())
    root = LakeStore.open(str(tmp_path / "lake"), create=True).root
    place = workplace(root, world_size=2, gpus=0.5)
    made = TrialProcess(place)
    assert isinstance(made._pool, TogetherPool)
    end = made.run(trials_of(study(train={"dataset": "d", "split": "p", "epochs": 7}))[0])
    stated = {"experiment": "s", "training": {}, "gpus_per_worker": 0.5}
    assert asked == [("r", stated, 2)]
    assert isinstance(end, TrialEnd) and end.warnings == ("figures can't be tracked in MLflow",)
    assert QuietBoard.fresh(place.board) == [  # type: ignore[arg-type]
        TrialNews("seed=0", {"epoch": 0.0, "auc": 0.5}, 7),
        TrialNews("seed=0", end_of_training, 7),
    ]


def test_epochs_and_warnings_of_a_trial_in_one_process_are_told(
    tmp_path: Path, use: Callable[..., Kinds], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def train(lake: str, run: str, rows: Any, config: Any, note: Any, warn: Any) -> Any:
        asked.append(config)
        note({"epoch": 2.0, "auc": 0.5})
        warn("no room")
        return {"config.json": b"{}", "_outcome.json": b'{"rejects": [{"reason": "corrupt"}]}'}

    monkeypatch.setattr(inline_pool, "train_here", train)

    def run(job: JobSpec) -> Report:
        if job.kind == "train":
            made._pool.train(Begun(), {"training": {}}, 1)  # type: ignore[arg-type]
        return Report(job.kind, job.name, "published", counts=Counts(1))

    use(run, set())
    root = LakeStore.open(str(tmp_path / "lake"), create=True).root
    place = workplace(root)
    made = TrialProcess(place)
    stages = [{"epochs": 3, "learning_rate": 1}, {"epochs": 4, "learning_rate": 1}]
    end = made.run(trials_of(study(train={"dataset": "d", "split": "p", "stages": stages}))[0])
    assert asked == [{"training": {}, "experiment": "s"}]
    assert isinstance(end, TrialEnd) and end.warnings == ("no room",)
    first, last = QuietBoard.fresh(place.board)  # type: ignore[arg-type]
    assert first == TrialNews("seed=0", {"epoch": 2.0, "auc": 0.5}, 7)
    assert (last.noted.kind, last.noted.done) == ("train", 2)
    assert last.noted.figures.reasons == {"corrupt": 1}
