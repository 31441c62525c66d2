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
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from cluster.storage import open_storage
from cluster.torch_trainer import TrainPlace, checkpoint_place, train
from cluster.train_here import train_here
from cluster.train_task import TrainTask, task_of
from schemas.bundle import CONFIG_FILE, OUTCOME_FILE, parse_config
from schemas.errors import RunError
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
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
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


@pytest.mark.slow
def test_failure_names_its_cause(two_cpus: None, tmp_path: Path) -> None:
    task = replace(_task(tmp_path, "broken"), fetch=_unreachable)
    place = TrainPlace(2, str(tmp_path), "broken", retries=0)
    with pytest.raises(RunError, match=r"Training failed \(broken\).*no route to the store"):
        train(task, place)


def test_failures_of_all_workers_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Ray Train raises, without the half minute it takes to start."""

    def fail(_: TorchTrainer) -> None:
        causes = {rank: ConnectionError("no route to the store") for rank in range(2)}
        raise WorkerGroupError("2 workers failed", causes)

    monkeypatch.setattr(TorchTrainer, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(TorchTrainer, "fit", fail)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    assert issubclass(WorkerGroupError, TrainingFailedError)
    expected = (
        r"^Training failed \(broken\): got ConnectionError: no route to the store\. The log of the "
        r"workers says more; run again to go on from the last checkpoint\.$"
    )
    with pytest.raises(RunError, match=expected):
        train(_task(tmp_path, "broken"), TrainPlace(2, str(tmp_path), "broken"))
