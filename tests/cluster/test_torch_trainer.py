"""Training with Ray Train: two workers, one of them killed, a driver that comes again."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.fs
import pytest
import ray

from cluster.storage import open_storage
from cluster.torch_trainer import TrainPlace, TrainTask, checkpoint_place, train
from schemas.bundle import CONFIG_FILE, OUTCOME_FILE, parse_config
from schemas.errors import RunError
from schemas.plan import Blob
from workers.models.classifier.bundling import BundleFacts
from workers.training.config import Optimisation, TrainConfig

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CONFIG = TrainConfig(
    architecture="test_efficientnet",
    classes=("dark", "bright"),
    recipe={"size": 32, "channels": 1},
    epochs=3,
    batch=16,
    optimisation=Optimisation(learning_rate=0.01),
)
FACTS = BundleFacts(
    name="squares",
    architecture=CONFIG.architecture,
    classes=CONFIG.classes,
    positive="bright",
    rule="youden",
    data={},
    training={},
    fingerprint="f" * 16,
)
COUNT = 64


class Pictures:
    """Makes an image from its number; number 3 can't be read."""

    def __call__(self, rows: pa.Table) -> Sequence[Blob]:
        return [self._picture(int(uri)) for uri in rows["uri"].to_pylist()]

    def _picture(self, number: int) -> bytes:
        if number == 3:
            return b""
        image = np.random.default_rng(number).integers(0, 90, (40, 40), dtype=np.uint8)
        image[10:20, 10:20] += 120 if number % 2 else 20
        return bytes(cv2.imencode(".png", image)[1].tobytes())


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


def _task(notes: Notes) -> TrainTask:
    numbers = range(COUNT)
    rows = pa.table(
        {
            "image_id": [f"{number:032x}" for number in numbers],
            "uri": [str(number) for number in numbers],
            "frame": pa.array([0] * COUNT, pa.int32()),
            "etag": ["e"] * COUNT,
            "part": ["train" if number < 48 else "val" for number in numbers],
            "label": ["bright" if number % 2 else "dark" for number in numbers],
            "group": [str(number) for number in numbers],
        }
    )
    return TrainTask(CONFIG, rows, Pictures(), FACTS, note=notes)


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def _train(folder: Path, name: str, notes: Notes) -> dict[str, bytes]:
    return train(_task(notes), TrainPlace(2, str(folder / "storage"), name))


@pytest.mark.slow
def test_two_workers_train_and_a_second_driver_finds_all_done(
    two_cpus: None, tmp_path: Path
) -> None:
    notes = Notes(tmp_path)
    files = _train(tmp_path, "whole", notes)
    assert notes.epochs() == [0, 1, 2]
    outcome = json.loads(files[OUTCOME_FILE])
    assert [one["image_id"] for one in outcome["rejects"]] == [f"{3:032x}"]
    assert outcome["rejects"][0]["reason"] == "empty_file"
    assert [one["epoch"] for one in outcome["history"]] == [0, 1, 2]
    assert outcome["history"][-1]["auc"] > 0.8
    again = _train(tmp_path, "whole", notes)
    assert notes.epochs() == [0, 1, 2]
    model_ids = {parse_config(one[CONFIG_FILE]).model_id for one in (files, again)}
    assert len(model_ids) == 1


@pytest.mark.slow
def test_killed_worker_changes_no_weight(two_cpus: None, tmp_path: Path) -> None:
    notes = Notes(tmp_path, tmp_path / "storage/killed/checkpoint_manager_snapshot.json")
    killed = _train(tmp_path, "killed", notes)
    assert (tmp_path / "killed").exists()
    assert notes.epochs() == [0, 1, 2]
    whole = _train(tmp_path, "whole", Notes(tmp_path))
    model_ids = {parse_config(one[CONFIG_FILE]).model_id for one in (killed, whole)}
    assert len(model_ids) == 1


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


class Broken(Pictures):
    """A store that can't be reached."""

    def __call__(self, rows: pa.Table) -> Sequence[Blob]:
        raise ConnectionError("no route to the store")


def test_failure_names_its_cause(two_cpus: None, tmp_path: Path) -> None:
    task = TrainTask(CONFIG, _task(Notes(tmp_path)).rows, Broken(), FACTS)
    place = TrainPlace(2, str(tmp_path), "broken", retries=0)
    with pytest.raises(RunError, match=r"Training failed \(broken\).*no route to the store"):
        train(task, place)
