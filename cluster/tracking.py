"""Following a training's figures: TensorBoard's event files always, MLflow where one is named.

A tracker that fails warns and never ends a training.
"""

import importlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

from cluster.tracking_events import EventFiles

MLFLOW_URI = "MLFLOW_TRACKING_URI"
MLFLOW_EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"

_MLFLOW_DEFAULTS = {
    # What runs on a hospital's images reports to nobody but the server it is told of.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is away must not hold an epoch up for minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracking:
    """What is told of a training before it begins; travels to the process that trains."""

    lake: str
    model: str
    """Name of the bundle."""
    run_id: str
    experiment: str
    """MLflow's name for what is compared: the study, or the bundle's name."""
    settings: Mapping[str, Any]
    """What determines the training, as JSON values; holds no identifier and no secret."""
    images: int = 0
    """Images of an epoch, all workers together."""

    @property
    def prefix(self) -> str:
        """Where event files lie below the lake's root; they outlive the run's commit."""
        return f"reports/training/{self.model}/{self.run_id}"


class Tracker(Protocol):
    """Follows one training; used by its first worker."""

    def epoch(self, figures: Mapping[str, float]) -> None:
        """Take the figures of a finished epoch; ``epoch`` counts from 0."""

    def close(self, *, finished: bool) -> None:
        """End the training's last epoch, or say that it broke off."""


@contextmanager
def open_tracker(
    tracking: Tracking | None, warn: Callable[[str], object] | None = None
) -> Iterator[Tracker]:
    """Everything that follows a training, as one tracker; follows nothing without ``tracking``."""
    trackers = Trackers(tracking.images if tracking else 0, warn or _log.warning)
    if tracking is not None:
        settings = flatten(tracking.settings)
        trackers.add(
            "TensorBoard's event files",
            lambda: EventFiles(tracking.lake, tracking.prefix, settings),
        )
        uri = os.environ.get(MLFLOW_URI)
        if uri:
            trackers.add(f"MLflow at {masked(uri)}", lambda: _mlflow(uri, tracking, settings))
    finished = False
    try:
        yield trackers
        finished = True
    finally:
        trackers.close(finished=finished)


class Trackers:
    """Several trackers as one; a failure of any is told once and ends nothing."""

    def __init__(self, images: int, warn: Callable[[str], object]) -> None:
        """``images`` are those of an epoch."""
        self._images, self._warn = images, warn
        self._trackers: dict[str, Tracker] = {}
        self._warned: set[str] = set()

    def add(self, name: str, open_one: Callable[[], Tracker]) -> None:
        """Open a tracker, unless that fails."""

        def opened() -> None:
            self._trackers[name] = open_one()

        self._try(name, opened)

    def epoch(self, figures: Mapping[str, float]) -> None:
        """Tell every tracker, and how fast the epoch went."""
        if figures.get("train_s"):
            figures = {**figures, "images_per_s": self._images / figures["train_s"]}
        for name, one in self._trackers.items():
            self._try(name, partial(one.epoch, figures))

    def close(self, *, finished: bool) -> None:
        """Close every tracker."""
        for name, one in self._trackers.items():
            self._try(name, partial(one.close, finished=finished))

    def _try(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - clients of servers fail in many ways
            if name not in self._warned:
                self._warned.add(name)
                # The message of a foreign error may quote the address with its password.
                why = str(error) if isinstance(error, ImportError) else type(error).__name__
                self._warn(f"figures can't be tracked in {name}, training goes on: {why}")


def _mlflow(uri: str, tracking: Tracking, settings: Mapping[str, str]) -> Tracker:
    """MLflow, whose client is loaded only here: it is optional, and takes seconds."""
    for name, value in _MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        module = importlib.import_module("cluster.tracking_mlflow")
    except ModuleNotFoundError as error:
        raise ImportError("it needs a package; install mlflow-skinny") from error
    experiment = os.environ.get(MLFLOW_EXPERIMENT) or tracking.experiment
    tracker: Tracker = module.MlflowRun(uri, experiment, tracking.run_id, settings)
    return tracker


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as text by dotted name; lists stay whole, as JSON."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def masked(uri: str) -> str:
    """A URI without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else parts.path
