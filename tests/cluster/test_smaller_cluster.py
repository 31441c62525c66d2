"""A training of two workers goes on where there is only one CPU, and ends with the same weights."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from cluster.torch_trainer import TrainPlace, train
from cluster.train_task import task_of
from schemas.bundle import CONFIG_FILE, OUTCOME_FILE, parse_config
from schemas.errors import RunError
from tests.cluster.squares import params, squares

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]


class Lost:
    """Ends the training in its third epoch, as the loss of its node would."""

    def __call__(self, figures: Mapping[str, float]) -> None:
        if figures["epoch"] == 2:
            raise ConnectionError("the node is gone")


@contextmanager
def _cpus(count: int) -> Iterator[None]:
    ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def test_two_workers_go_on_with_one_cpu(tmp_path: Path) -> None:
    task = task_of(str(tmp_path / "lake"), "run", squares(tmp_path / "squares"), params())
    place = TrainPlace(2, str(tmp_path / "storage"), "run", retries=0)
    with _cpus(2):
        with pytest.raises(RunError, match="Training failed.*got ConnectionError"):
            train(replace(task, note=Lost()), place)
        whole = train(task, replace(place, run_name="whole"))
    noted = tmp_path / "noted"
    with _cpus(1):
        smaller = train(replace(task, note=lambda one: _add(noted, one)), place)
    assert noted.read_text().split()[-1] == "2.0"
    assert "0.0" not in noted.read_text().split()
    assert len(json.loads(smaller[OUTCOME_FILE])["history"]) == 3
    ids = {parse_config(one[CONFIG_FILE]).model_id for one in (smaller, whole)}
    assert len(ids) == 1


def _add(path: Path, figures: Mapping[str, float]) -> None:
    with path.open("a") as file:
        file.write(f"{figures['epoch']}\n")
