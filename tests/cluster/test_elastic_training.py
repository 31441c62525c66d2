"""A training between a fewest and a largest number of workers, which loses a machine."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import ray
import ray.train
from ray.cluster_utils import Cluster

from cluster.torch_trainer import TrainPlace, train
from cluster.train_task import task_of
from schemas.bundle import CONFIG_FILE, parse_config
from tests.cluster.squares import params, squares

EPOCHS = 20
LOST_AFTER = 4

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]


class Notes:
    """Writes down how many workers trained each epoch."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, figures: Mapping[str, float]) -> None:
        workers = ray.train.get_context().get_world_size()
        with self.file.open("a") as file:
            file.write(f"{int(figures['epoch'])} {workers}\n")
        time.sleep(0.2)

    def read(self) -> list[tuple[int, int]]:
        if not self.file.exists():
            return []
        lines = [line.split() for line in self.file.read_text().splitlines()]
        return [(int(epoch), int(workers)) for epoch, workers in lines]


@pytest.fixture
def machines() -> Iterator[Cluster]:
    """Two machines of one CPU each, the driver's and another."""
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_training_begins_with_what_there_is_and_goes_on_with_fewer(
    machines: Cluster, tmp_path: Path
) -> None:
    notes = Notes(tmp_path / "epochs")

    def lose_one() -> None:
        deadline = time.monotonic() + 300
        while len(notes.read()) < LOST_AFTER and time.monotonic() < deadline:
            time.sleep(0.2)
        (other,) = machines.worker_nodes
        machines.remove_node(other, allow_graceful=False)

    rows = squares(tmp_path / "squares")
    task = task_of(str(tmp_path / "lake"), "elastic", rows, params(epochs=EPOCHS))
    losing = Thread(target=lose_one, daemon=True)
    losing.start()
    place = TrainPlace(4, str(tmp_path / "storage"), "elastic", min_workers=1)
    files = train(replace(task, note=notes), place)
    losing.join()
    noted = notes.read()
    assert noted[0] == (0, 2) and noted[-1] == (EPOCHS - 1, 1)
    sizes = [workers for _, workers in noted]
    assert sizes == sorted(sizes, reverse=True)
    again = [epoch for epoch, workers in noted if workers == 1]
    assert again == list(range(again[0], EPOCHS))
    assert again[0] >= LOST_AFTER - 2, "it began anew"
    assert parse_config(files[CONFIG_FILE]).metrics["val"]["auc"] > 0.8
