"""Training as the pool starts it: what is shown, and a process that dies while it leads."""

import io
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import train
from cluster.lake.runs import FINISH, LakeRun
from cluster.lake.store import LakeStore
from cluster.pool import RayPool
from cluster.progress import Progress
from cluster.ray_session import RaySession
from cluster.train import Shown, epochs_of
from cluster.train_here import train_here
from cluster.watching.metrics import ShardFigures, Standing
from schemas.bundle import CONFIG_FILE, parse_config
from schemas.plan import Plan
from schemas.protocols import Run
from tests.cluster.squares import params, squares

EPOCHS = 40


def _figures(epoch: int) -> dict[str, float]:
    return {"epoch": float(epoch), "loss": 0.5, "auc": 0.75, "train_s": 1.0}


class Shows(Progress):
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.told: list[Any] = []

    def start(self, job: str, total: int, unit: str, settled: int = 0) -> None:
        self.told.append((total, settled))

    def advance(self, done: int, rejected: int = 0) -> None:
        self.told.append(done)

    def note(self, text: str) -> None:
        self.told.append(text)


def test_epochs_are_shown_as_images() -> None:
    shows = Shows()
    shown = Shown(shows, "train", 100, 3)
    # A worker dies: the first epoch is trained again.
    for noted in (_figures(0), "the disk is nearly full", _figures(0), _figures(1)):
        shown.add(noted)
    assert shows.told == [
        (300, 0),
        100,
        "epoch 1 of 3: loss 0.5, auc 0.75",
        "the disk is nearly full",
        100,
        "epoch 2 of 3: loss 0.5, auc 0.75",
    ]


def test_epochs_of_an_earlier_driver_count_as_settled() -> None:
    shows = Shows()
    Shown(shows, "train", 100, 5).add(_figures(2))
    assert shows.told[:3] == [(500, 0), (500, 200), 100]


def test_epochs_are_those_of_all_stages() -> None:
    assert epochs_of({"training": {"stages": [{"epochs": 2}, {"epochs": 5}]}}) == 7
    assert epochs_of({"svm": {}}) == 1


class Kills(Shows):
    """Kills the process that trains when it hears of the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.killed: list[int] = []

    def note(self, text: str) -> None:
        super().note(text)
        for process in psutil.Process(os.getpid()).children(recursive=True):
            if not self.killed and "ray::train_bundle" in " ".join(process.cmdline()):
                self.killed.append(process.pid)
                process.kill()


class Records:
    """Stands in for the metrics of a run: writes down what the driver records."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, ShardFigures]] = []
        self.deaths: list[str] = []
        self.shown: list[Standing] = []

    def __call__(self, labels: tuple[str, str, str], *, has_gpu: bool) -> "Records":
        assert labels[:2] == ("train", "train") and not has_gpu
        return self

    def shard_ended(self, done: int, figures: ShardFigures) -> None:
        self.ended.append((done, figures))

    def died(self, cause: str) -> None:
        self.deaths.append(cause)

    def show(self, standing: Standing) -> None:
        self.shown.append(standing)


def _begin(store: LakeStore, folder: Path) -> Run:
    rows = squares(folder / "squares")
    plan = Plan(
        kind="train",
        name="train",
        key=("train", "squares"),
        identity={},
        params=params(epochs=EPOCHS),
        inputs=rows,
        bounds=(0, rows.num_rows),
    )
    return store.begin(plan, {})


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_process_that_dies_while_it_trains_gets_a_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records()
    monkeypatch.setattr(train, "POLL_S", 0.05)
    monkeypatch.setattr(train, "RunMetrics", records)
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    shows = Kills()
    with (
        store.lease(("train", "squares")),
        RayPool(store.root, RaySession(cpus=1), shows) as pool,
    ):
        run = _begin(store, tmp_path)
        files = pool.train(run, run.plan.params, 1)
        assert isinstance(run, LakeRun)
        cost = run.receipts()[FINISH].cost
    assert len(shows.killed) == 1
    assert records.deaths == ["process"]
    ((done, figures),) = records.ended
    assert done == run.plan.inputs.num_rows - 1 and figures.reasons == {"empty_file": 1}
    # The time of the process that died counts for those who wait, and for nobody's cost.
    assert 0 < figures.seconds["compute"] < figures.wall_s
    assert cost is not None and 0 < cost.cpu_s < 100 and cost.gpu_s == 0
    assert [(len(one.ages_s), one.left) for one in records.shown[:-1]] == [(1, 1)] * (
        len(records.shown) - 1
    )
    assert records.shown[-1] == Standing((), 0, 0, 0)
    assert [one.partition(" of")[0] for one in shows.told if isinstance(one, str)] == [
        f"epoch {number}" for number in range(1, EPOCHS + 1)
    ]
    whole = train_here(str(tmp_path / "other"), run.id, run.plan.inputs, run.plan.params)
    ids = {parse_config(one[CONFIG_FILE]).model_id for one in (files, whole)}
    assert len(ids) == 1
