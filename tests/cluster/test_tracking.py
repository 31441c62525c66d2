"""Figures of a training in TensorBoard's event files and in MLflow, read back by their own code."""

import logging
import math
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster import tracking_events
from cluster.storage import open_storage
from cluster.tracking import Tracking, flatten, masked, open_tracker
from cluster.train_checkpoints import Checkpoints
from cluster.train_here import train_here
from tests.cluster.squares import params, squares

RUN = "20261121T080000000Z-train-abcdef"
PREFIX = f"reports/training/squares/{RUN}"
SETTINGS = {"batch": 32, "optimisation": {"learning_rate": 0.001}, "stages": [{"epochs": 2}]}


def _tracking(lake: str) -> Tracking:
    return Tracking(lake, "squares", RUN, "shapes", SETTINGS, images=100)


def _figures(epoch: int, loss: float) -> dict[str, float]:
    return {"epoch": float(epoch), "loss": loss, "auc": 1 - loss, "train_s": 4.0}


def _cut_off(tracking: Tracking, losses: list[float]) -> None:
    """A training that ends by a signal after some epochs."""

    def train() -> None:
        with open_tracker(tracking) as tracker:
            for epoch, loss in enumerate(losses):
                tracker.epoch(_figures(epoch, loss))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()


def _events(lake: str, scratch: Path) -> EventAccumulator:
    """What TensorBoard makes of the files of a run."""
    storage = open_storage(lake)
    scratch.mkdir()
    for entry in storage.list(PREFIX):
        (scratch / entry.path.rpartition("/")[2]).write_bytes(storage.get(entry.path))
    return EventAccumulator(str(scratch)).Reload()


def _scalars(events: EventAccumulator, tag: str) -> dict[int, float]:
    found = [(one.step, one.value) for one in events.Scalars(tag)]
    assert len(dict(found)) == len(found)  # no step twice
    return dict(found)


def test_event_files_hold_every_epoch(any_root: str, tmp_path: Path) -> None:
    with open_tracker(_tracking(any_root)) as tracker:
        tracker.epoch(_figures(0, 0.5))
        first = _events(any_root, tmp_path / "first")
        assert _scalars(first, "loss") == {1: 0.5}  # there while the training goes on
        tracker.epoch(_figures(1, 0.25))
    events = _events(any_root, tmp_path / "both")
    assert _scalars(events, "loss") == {1: 0.5, 2: 0.25}
    assert _scalars(events, "auc") == {1: 0.5, 2: 0.75}
    assert _scalars(events, "images_per_s") == {1: 25.0, 2: 25.0}
    assert set(events.Tags()["scalars"]) == {"loss", "auc", "train_s", "images_per_s"}
    (text,) = events.Tensors("settings/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert "| optimisation.learning_rate | 0.001 |" in shown
    assert '| stages | [{"epochs": 2}] |' in shown


def test_epochs_that_are_trained_again_stand_once(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    _cut_off(_tracking(lake), [0.5, 0.4])  # before the second checkpoint was written
    with open_tracker(_tracking(lake)) as tracker:
        tracker.epoch(_figures(1, 0.3))
        tracker.epoch(_figures(2, 0.25))
    assert len(list(Path(lake, PREFIX).iterdir())) == 2
    loss = _scalars(_events(lake, tmp_path / "read"), "loss")
    assert loss == pytest.approx({1: 0.5, 2: 0.3, 3: 0.25})


def test_figures_that_are_no_numbers_are_kept(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    with open_tracker(_tracking(lake)) as tracker:
        tracker.epoch(_figures(0, math.nan))
    assert math.isnan(_scalars(_events(lake, tmp_path / "read"), "loss")[1])


def test_a_training_is_followed_through_its_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, lake = squares(tmp_path / "squares"), str(tmp_path / "lake")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "keep", _dies_at_the_second(Checkpoints.keep))
        with pytest.raises(KeyboardInterrupt):
            train_here(lake, RUN, rows, params())
    train_here(lake, RUN, rows, params())
    events = _events(lake, tmp_path / "read")
    for tag in ("loss", "val_loss", "auc", "accuracy", "learning_rate", "images_per_s", "train_s"):
        assert list(_scalars(events, tag)) == [1, 2, 3], tag
    shown = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| data.dataset | chests |" in shown
    assert str(tmp_path) not in shown


def _dies_at_the_second(keep: object) -> object:
    def dying(self: Checkpoints, epochs_done: int, folder: Path) -> None:
        if epochs_done == 2:
            raise KeyboardInterrupt
        keep(self, epochs_done, folder)  # type: ignore[operator]

    return dying


def test_a_tracker_that_fails_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on s3://key:secret@host")

    monkeypatch.setattr(tracking_events, "EventsWriter", full)
    said: list[str] = []
    with open_tracker(_tracking(str(tmp_path)), said.append) as tracker:
        tracker.epoch(_figures(0, 0.5))
        tracker.epoch(_figures(1, 0.4))
    (warning,) = said
    assert warning == (
        "figures can't be tracked in TensorBoard's event files, training goes on: OSError"
    )
    with caplog.at_level(logging.WARNING), open_tracker(_tracking(str(tmp_path))) as tracker:
        tracker.epoch(_figures(0, 0.5))
    assert "training goes on" in caplog.text


def test_mlflow_that_is_asked_for_but_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", "https://someone:hunter2@mlflow.example:8443/x?token=t"
    )
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "cluster.tracking_mlflow", raising=False)
    said: list[str] = []
    with open_tracker(_tracking(str(tmp_path)), said.append) as tracker:
        tracker.epoch(_figures(0, 0.5))
    (warning,) = said
    assert warning == (
        "figures can't be tracked in MLflow at https://mlflow.example:8443/x, training goes on: "
        "it needs a package; install mlflow-skinny"
    )
    assert len(list((tmp_path / PREFIX).iterdir())) == 1


@pytest.fixture
def mlflow_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store of MLflow in a folder."""
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    uri = f"file://{tmp_path}/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return uri


def _mlflow_history(uri: str, tag: str) -> tuple[Mapping[str, str], dict[int, float], str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("shapes")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == RUN
    found = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, tag)]
    assert len(dict(found)) == len(found)
    return run.data.params, dict(found), run.info.status


def test_mlflow_gets_one_run_of_a_training_that_was_resumed(
    tmp_path: Path, mlflow_uri: str
) -> None:
    said: list[str] = []
    tracking = _tracking(str(tmp_path / "lake"))
    _cut_off(tracking, [0.5, 0.4])
    settings, loss, status = _mlflow_history(mlflow_uri, "loss")
    assert (loss, status) == ({1: 0.5, 2: 0.4}, "FAILED")
    with open_tracker(tracking, said.append) as tracker:
        tracker.epoch(_figures(1, 0.4))
        tracker.epoch(_figures(2, 0.25))
    settings, loss, status = _mlflow_history(mlflow_uri, "loss")
    assert (loss, status) == ({1: 0.5, 2: 0.4, 3: 0.25}, "FINISHED")
    assert settings == {
        "batch": "32",
        "optimisation.learning_rate": "0.001",
        "stages": '[{"epochs": 2}]',
    }
    assert said == []


def test_a_server_that_is_away_gets_the_epochs_later(
    tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import tracking_mlflow

    clock = [1000.0]
    monkeypatch.setattr(tracking_mlflow.time, "monotonic", lambda: clock[0])
    asked: list[str] = []

    def away(_: object, name: str) -> None:
        asked.append(name)
        raise ConnectionError("https://someone:hunter2@mlflow.example")

    said: list[str] = []
    with open_tracker(_tracking(str(tmp_path / "lake")), said.append) as tracker:
        with monkeypatch.context() as patch:
            patch.setattr(tracking_mlflow.MlflowClient, "get_experiment_by_name", away)
            for epoch, moment in enumerate((1000.0, 1030.0, 1061.0, 1150.0)):
                clock[0] = moment
                tracker.epoch(_figures(epoch, 0.5))
        assert len(asked) == 2  # at 1000 and a minute later, then not for two minutes
        clock[0] = 1200.0
        tracker.epoch(_figures(4, 0.25))
        assert list(_mlflow_history(mlflow_uri, "loss")[1]) == [1, 2, 3, 4, 5]
    (warning,) = said
    assert warning.endswith("training goes on: ConnectionError")


def test_no_server_costs_seconds_not_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        port = taken.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        said: list[str] = []
        with open_tracker(_tracking(str(tmp_path)), said.append) as tracker:
            tracker.epoch(_figures(0, 0.5))
    assert len(said) == 1


def test_settings_are_flattened() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "text", "f": None}) == {
        "a.b": "1",
        "a.c.d": "[1, 2]",
        "e": "text",
        "f": "null",
    }


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:5000/path?token=abc#x", "https://host:5000/path"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("databricks", "databricks"),
        ("http://me:secret@host:no-port", "http://host:no-port"),
        ("postgresql://u:p@db/mlflow", "postgresql://db/mlflow"),
    ],
)
def test_addresses_are_shown_without_their_secrets(uri: str, shown: str) -> None:
    assert masked(uri) == shown


def test_rows_of_a_plan_give_the_images_of_an_epoch(tmp_path: Path) -> None:
    from cluster.train_task import task_of

    rows = squares(tmp_path / "squares", 16)
    tracking = task_of(str(tmp_path), RUN, rows, params()).tracking
    assert tracking is not None
    parts: pa.ChunkedArray = rows["part"]
    assert tracking.images == parts.to_pylist().count("train") == 12
    assert tracking.experiment == "squares"
