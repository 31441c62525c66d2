"""Training in the calling process: it is cut off anywhere, and ends as if it had not been."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
import torch

from cluster.fetch import Fetcher
from cluster.storage import open_storage
from cluster.train_checkpoints import Checkpoints
from cluster.train_here import LakeContext, train_here
from cluster.train_task import own_device, task_of
from schemas.bundle import CONFIG_FILE, OUTCOME_FILE, WEIGHTS_FILE, parse_config
from schemas.errors import RunError, SourceError
from tests.cluster.squares import BROKEN, params, squares

RUN = "20261121T080000000Z-train-abcdef"
HERE = f"_runs/{RUN}/train/here"


class Killed(BaseException):
    """Stands in for a signal that ends the process."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def whole(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The training that nothing cut off."""
    return train_here(str(tmp_path_factory.mktemp("whole")), RUN, rows, params())


def _model_id(files: Mapping[str, bytes]) -> str:
    return parse_config(files[CONFIG_FILE]).model_id


def test_a_training_here_makes_a_bundle(any_root: str, rows: pa.Table, whole: object) -> None:
    threads = torch.get_num_threads()
    noted: list[float] = []
    files = train_here(any_root, RUN, rows, params(), lambda figures: noted.append(figures["auc"]))
    outcome = json.loads(files[OUTCOME_FILE])
    assert [one["auc"] for one in outcome["history"]] == noted
    assert len(noted) == 3
    assert [(one["image_id"], one["reason"]) for one in outcome["rejects"]] == [
        (f"{BROKEN:032x}", "empty_file")
    ]
    assert parse_config(files[CONFIG_FILE]).metrics["val"]["auc"] == pytest.approx(
        max(noted), abs=1e-6
    )
    assert _model_id(files) == _model_id(whole)  # wherever the lake lies
    assert torch.get_num_threads() == threads
    kept = {entry.path for entry in open_storage(any_root).list(HERE)}
    assert {path.removeprefix(f"{HERE}/")[:6] for path in kept} == {"000003"}


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ("_write:5", [1, 2]),  # before the second checkpoint is whole
        ("_remove_older_than:2", [2]),  # while two are whole: the second epoch is not trained again
    ],
)
def test_a_kill_while_a_checkpoint_is_written_changes_no_weight(
    tmp_path: Path,
    rows: pa.Table,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    left: list[int],
) -> None:
    name, _, count = step.partition(":")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, name, _dies_at(getattr(Checkpoints, name), int(count)))
        with pytest.raises(Killed):
            train_here(str(tmp_path), RUN, rows, params())
    noted: list[int] = []
    again = train_here(
        str(tmp_path), RUN, rows, params(), lambda figures: noted.append(int(figures["epoch"]))
    )
    assert noted == left
    assert _model_id(again) == _model_id(whole)
    assert len(json.loads(again[OUTCOME_FILE])["history"]) == 3


def _dies_at(method: Callable[..., None], count: int) -> Callable[..., None]:
    calls = []

    def dying(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == count:
            raise Killed
        method(*arguments)

    return dying


def _folder(place: Path, **files: str) -> Path:
    place.mkdir()
    for name, content in files.items():
        (place / name).write_text(content)
    return place


def _read(checkpoints: Checkpoints) -> dict[str, str] | None:
    with checkpoints.newest() as folder:
        return folder and {one.name: one.read_text() for one in folder.iterdir()}


def test_the_newest_whole_checkpoint_counts(any_root: str, tmp_path: Path) -> None:
    storage = open_storage(any_root)
    checkpoints = Checkpoints(storage, RUN)
    assert _read(checkpoints) is None
    checkpoints.keep(9, _folder(tmp_path / "9", weights="nine", progress="9"))
    assert _read(checkpoints) == {"weights": "nine", "progress": "9"}
    # Another that was cut off: its files are there, its marker is not.
    storage.put(f"{HERE}/000010-aaaaaaaa/weights", b"ten")
    assert _read(checkpoints) == {"weights": "nine", "progress": "9"}
    # A marker whose files are not as it says.
    storage.put(f"{HERE}/000010-aaaaaaaa.json", b'{"weights": 4}')
    assert _read(checkpoints) == {"weights": "nine", "progress": "9"}
    storage.put(f"{HERE}/000010-aaaaaaaa.json", b'{"weights": 3, "progress": 2}')
    assert _read(checkpoints) == {"weights": "nine", "progress": "9"}
    storage.put(f"{HERE}/000010-aaaaaaaa.json", b'{"weights": 3}')
    assert _read(checkpoints) == {"weights": "ten"}
    checkpoints.keep(11, _folder(tmp_path / "11", weights="eleven"))
    assert _read(checkpoints) == {"weights": "eleven"}
    left = {entry.path.removeprefix(f"{HERE}/")[:6] for entry in storage.list(HERE)}
    assert left == {"000011"}
    assert _read(Checkpoints(storage, "20261121T080000000Z-train-other")) is None


def test_a_failure_names_its_cause(
    tmp_path: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise ConnectionError("no route to the store")

    monkeypatch.setattr(Fetcher, "fetch_files", unreachable)
    # Only the class and the place: the message may quote what no log may hold.
    expected = (
        rf"Training failed \({RUN}\): got ConnectionError at test_train_here.py:\d+\. The log"
    )
    with pytest.raises(RunError, match=expected) as raised:
        train_here(str(tmp_path), RUN, rows, params())
    assert "route" not in str(raised.value)
    missing = params() | {"start_uri": str(tmp_path / "nothing.safetensors")}
    with pytest.raises(SourceError, match="does not exist"):
        train_here(str(tmp_path), RUN, rows, missing)


@pytest.mark.parametrize(
    ("is_ray", "ids", "task", "device"),
    [
        (False, [], None, "cuda:0"),  # a process of its own
        (True, [], None, "cuda:0"),  # the driver
        (True, [], "task", "cpu"),  # gpus_per_trial: 0 on a machine with GPUs
        (True, ["3"], "task", "cuda:0"),  # a whole one, or a share
    ],
)
def test_a_training_takes_the_gpu_that_ray_gave_its_process(
    monkeypatch: pytest.MonkeyPatch, is_ray: bool, ids: list[str], task: str | None, device: str
) -> None:
    class Context:
        def get_accelerator_ids(self) -> dict[str, list[str]]:
            return {"GPU": ids}

        def get_task_id(self) -> str | None:
            return task

        def get_actor_id(self) -> str | None:
            return task

    monkeypatch.setattr(ray, "is_initialized", lambda: is_ray)
    monkeypatch.setattr(ray, "get_runtime_context", Context)
    assert own_device() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert own_device() == device
    context = LakeContext(Checkpoints(open_storage("."), RUN), None, None)  # type: ignore[arg-type]
    assert context.device == device


def test_a_bundle_to_start_from_says_how_its_pixels_were_made(
    tmp_path: Path, rows: pa.Table, whole: dict[str, bytes]
) -> None:
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    bundle = parse_config(whole[CONFIG_FILE])
    stated = params(1, start="checkpoint") | {"start_uri": str(tmp_path / WEIGHTS_FILE)}
    task = task_of(str(tmp_path), RUN, rows, stated | {"start_id": bundle.model_id})
    assert task.origin.weights == whole[WEIGHTS_FILE]
    assert task.origin.pixels == bundle.preprocessing
    other = rows.filter(pc.not_equal(rows["group"], "1"))  # with another mean
    files = train_here(str(tmp_path), RUN, other, stated | {"start_id": bundle.model_id})
    assert parse_config(files[CONFIG_FILE]).preprocessing == bundle.preprocessing
    assert task_of(str(tmp_path), RUN, rows, stated).origin.pixels is None


_TRAIN = """
import json, sys
import pyarrow.parquet as pq
from cluster.train_here import train_here
lake, run, rows, params = sys.argv[1:]
told = lambda figures: print(int(figures["epoch"]), flush=True)
train_here(lake, run, pq.read_table(rows), json.loads(params), told)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_what_another_goes_on_from(
    tmp_path: Path, rows: pa.Table, whole: dict[str, bytes]
) -> None:
    table, lake = tmp_path / "rows.parquet", str(tmp_path / "lake")
    pq.write_table(rows, table)
    command = [sys.executable, "-c", _TRAIN, lake, RUN, str(table), json.dumps(params())]
    for epoch in (0, 1):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as began:
            assert began.stdout is not None
            assert int(began.stdout.readline()) == epoch
            began.kill()
        assert began.returncode == -signal.SIGKILL
    noted: list[int] = []
    files = train_here(lake, RUN, rows, params(), lambda figures: noted.append(figures["epoch"]))
    assert noted in ([2], [])
    assert _model_id(files) == _model_id(whole)
