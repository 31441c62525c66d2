"""Training with Ray Train: two workers, one of them killed, a driver that comes again."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pytest
import ray
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from cluster import torch_trainer
from cluster.storage import open_storage
from cluster.torch_trainer import TrainPlace, checkpoint_place, train
from cluster.train_end import SPENT_FILE
from cluster.train_here import train_here
from cluster.train_task import TrainTask, task_of
from schemas.bundle import CONFIG_FILE, OUTCOME_FILE, parse_config
from schemas.errors import RaywardError, RunError, SourceError
from schemas.plan import Blob
from tests.cluster.squares import BROKEN, params, squares

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


class Notes:
    """Writes finished epochs to a file, and kills its worker once in the second."""

    def __init__(self, folder: Path, snapshot: Path | None = None) -> None:
        self.folder, self.snapshot = folder, snapshot

    def __call__(self, figures: Mapping[str, float]) -> None:
        killed = self.folder / "killed"
        if self.snapshot and figures["epoch"] == 1 and not killed.exists():
            killed.touch()
            self._await_checkpoint(self.snapshot)
            os._exit(1)
        with (self.folder / "epochs").open("a") as file:
            file.write(f"{int(figures['epoch'])}\n")

    def _await_checkpoint(self, snapshot: Path) -> None:
        """Ray takes note of a checkpoint a moment after it was reported."""
        for _ in range(600):
            if snapshot.exists() and "checkpoint_" in snapshot.read_text():
                return
            time.sleep(0.1)

    def epochs(self) -> list[int]:
        return [int(line) for line in (self.folder / "epochs").read_text().split()]


def _task(folder: Path, name: str, notes: Notes | None = None) -> TrainTask:
    rows = squares(folder / "squares")
    return replace(task_of(str(folder / "lake"), name, rows, params()), note=notes)


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def _train(folder: Path, name: str, notes: Notes, workers: int = 2) -> dict[str, bytes]:
    return train(_task(folder, name, notes), TrainPlace(workers, str(folder / "storage"), name))


def _model_id(files: Mapping[str, bytes]) -> str:
    return parse_config(files[CONFIG_FILE]).model_id


@pytest.mark.slow
def test_two_workers_train_and_a_second_driver_finds_all_done(
    two_cpus: None, tmp_path: Path
) -> None:
    notes = Notes(tmp_path)
    files = _train(tmp_path, "whole", notes)
    assert notes.epochs() == [0, 1, 2]
    outcome = json.loads(files[OUTCOME_FILE])
    assert [one["image_id"] for one in outcome["rejects"]] == [f"{BROKEN:032x}"]
    assert outcome["rejects"][0]["reason"] == "empty_file"
    assert [one["epoch"] for one in outcome["history"]] == [0, 1, 2]
    assert outcome["history"][-1]["auc"] > 0.8
    spent = json.loads(files[SPENT_FILE])
    # Of both workers and of the process that made the bundle.
    assert 0 < spent["cpu_s"] < 200 and spent["wall_s"] > 0 and spent["gpu_s"] == 0
    (events,) = (tmp_path / "lake/reports/training/squares/whole").iterdir()
    assert events.stat().st_size > 1000
    again = _train(tmp_path, "whole", notes)
    assert notes.epochs() == [0, 1, 2]
    assert _model_id(again) == _model_id(files)


@pytest.mark.slow
def test_killed_worker_changes_no_weight(two_cpus: None, tmp_path: Path) -> None:
    notes = Notes(tmp_path, tmp_path / "storage/killed/checkpoint_manager_snapshot.json")
    killed = _train(tmp_path, "killed", notes)
    assert (tmp_path / "killed").exists()
    assert notes.epochs() == [0, 1, 2]
    whole = _train(tmp_path, "whole", Notes(tmp_path))
    assert _model_id(killed) == _model_id(whole)


@pytest.mark.slow
def test_one_worker_of_ray_and_this_process_train_the_same_bundle(
    two_cpus: None, tmp_path: Path
) -> None:
    by_ray = _train(tmp_path, "one", Notes(tmp_path), workers=1)
    here = train_here(str(tmp_path / "lake"), "here", squares(tmp_path / "squares"), params())
    assert _model_id(by_ray) == _model_id(here)


def test_checkpoints_lie_with_the_run(any_root: str) -> None:
    filesystem, path = checkpoint_place(any_root, "20261121T080000000Z-train-abcdef")
    storage = open_storage(any_root)
    if filesystem is None:
        filesystem = pyarrow.fs.LocalFileSystem()
        filesystem.create_dir(path)
    with filesystem.open_output_stream(f"{path}/state.bin") as stream:
        stream.write(b"weights")
    kept = storage.get("_runs/20261121T080000000Z-train-abcdef/train/state.bin")
    assert kept == b"weights"


def _unreachable(rows: pa.Table) -> Sequence[Blob]:
    raise ConnectionError("no route to the store")


def _unfit(rows: pa.Table) -> Sequence[Blob]:
    raise SourceError("No such image", where="chests")


@pytest.mark.slow
def test_failure_names_its_cause(two_cpus: None, tmp_path: Path) -> None:
    task = replace(_task(tmp_path, "broken"), fetch=_unreachable)
    place = TrainPlace(2, str(tmp_path), "broken", retries=0)
    expected = r"Training failed \(broken\): got ConnectionError at test_torch_trainer.py:\d+\. The"
    with pytest.raises(RunError, match=expected):
        train(task, place)
    task = replace(_task(tmp_path, "unfit"), fetch=_unfit)
    with pytest.raises(SourceError, match=r"^No such image \(chests\)\.$"):
        train(task, TrainPlace(2, str(tmp_path), "unfit", retries=0))


TRACE = 'Traceback:\n  File "/x/y/fetch.py", line 40, in get\n    PATIENT^DOE\n'
FAILED = (
    "Training failed (broken): got {}. The log of the workers says more; run again to go on from "
    "the last checkpoint."
)


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        (
            # As Ray 2.60 hands them on: with the traceback as their text.
            {
                rank: UserExceptionWithTraceback(ConnectionError("PATIENT^DOE"), TRACE)
                for rank in range(2)
            },
            FAILED.format("ConnectionError at fetch.py:40"),
        ),
        (
            {0: ConnectionError("PATIENT^DOE"), 1: KeyError("PATIENT^DOE")},
            FAILED.format("ConnectionError; KeyError"),
        ),
        (
            {0: UserExceptionWithTraceback(SourceError("No such image", where="chests"), TRACE)},
            "No such image (chests).",
        ),
    ],
)
def test_failures_of_workers_are_told_once_by_class_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: dict[int, Exception], told: str
) -> None:
    """What Ray Train raises, without the half minute it takes to start."""

    def fail(_: TorchTrainer) -> None:
        raise WorkerGroupError("2 workers failed: PATIENT^DOE", failures)

    monkeypatch.setattr(TorchTrainer, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(TorchTrainer, "fit", fail)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    assert issubclass(WorkerGroupError, TrainingFailedError)
    with pytest.raises(RaywardError) as raised:
        train(_task(tmp_path, "broken"), TrainPlace(2, str(tmp_path), "broken"))
    assert str(raised.value) == told


@pytest.mark.parametrize(
    ("there", "place", "resources", "backend"),
    [
        ({"CPU": 8.0}, TrainPlace(2, "s", "r"), {"CPU": 1.0}, "gloo"),
        ({"CPU": 8.0, "GPU": 2.0}, TrainPlace(2, "s", "r"), {"CPU": 1.0, "GPU": 1.0}, "nccl"),
        ({"CPU": 1.0, "GPU": 1.0}, TrainPlace(2, "s", "r"), {"CPU": 0.5, "GPU": 0.5}, "gloo"),
        # A study says what its trials take, whatever else the cluster has.
        ({"CPU": 8.0, "GPU": 8.0}, TrainPlace(2, "s", "r", gpus=0), {"CPU": 1.0}, "gloo"),
        (
            {"CPU": 8.0, "GPU": 8.0},
            TrainPlace(2, "s", "r", gpus=0.5),
            {"CPU": 1.0, "GPU": 0.5},
            "gloo",
        ),
        # Elastic workers have whole CPUs or GPUs: as many run as fit.
        ({"CPU": 2.0}, TrainPlace(4, "s", "r", min_workers=1), {"CPU": 1.0}, "gloo"),
        (
            {"CPU": 8.0, "GPU": 2.0},
            TrainPlace(4, "s", "r", min_workers=2),
            {"CPU": 1.0, "GPU": 1.0},
            "nccl",
        ),
    ],
)
def test_workers_take_the_gpus_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
    there: dict[str, float],
    place: TrainPlace,
    resources: dict[str, float],
    backend: str,
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    scaling = torch_trainer._scaling(place)
    assert scaling.resources_per_worker == resources
    assert scaling.use_gpu is ("GPU" in resources)
    assert scaling.max_workers == place.workers
    assert scaling.min_workers == (place.min_workers or place.workers)
    assert scaling.elasticity_enabled is (place.min_workers is not None)
    assert torch_trainer._backend(place).backend == backend
