"""Ray Train's TorchTrainer around the epoch loop; loads torch, so the driver never imports it.

Ray starts one process per worker, joins them in a process group and keeps the checkpoints that
the first reports. When a worker dies, all are started again and go on from the last checkpoint;
when the driver dies, a run of the same name does so too. A training with one worker needs none of
this: see `cluster.train_here`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pyarrow.fs
import ray
import ray.train
from ray.train.torch import TorchConfig, get_device
from ray.train.v2.api.config import (
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
)
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.train.v2.api.result import Result
from ray.train.v2.torch.torch_trainer import TorchTrainer

from cluster.foreign import told
from cluster.lake.layout import train_prefix
from cluster.storage import open_storage
from cluster.tracking import Tracker, open_tracker
from cluster.train_end import with_spent
from cluster.train_order import GPUS, MIN_WORKERS, TrainOrder
from cluster.train_task import (
    Fitted,
    Note,
    TrainTask,
    failure,
    finish_task,
    fit_task,
    own_device,
    task_of,
)
from cluster.watching.logs import configure_logs, log_fields
from cluster.watching.meter import Meter, Spent
from schemas.errors import RaywardError, RunError
from workers.training import ranks
from workers.training.checkpoint import BEST_FILE, PROGRESS_FILE

_NOTHING: Mapping[str, object] = MappingProxyType({})
_LOSSES = 10
"""How often an elastic training is gone on with: it is meant to lose machines."""


@dataclass(frozen=True)
class TrainPlace:
    """Where a training runs and keeps its checkpoints."""

    workers: int
    storage: str
    """A folder, or a path within ``filesystem``, that every node reaches."""
    run_name: str
    """Unique to the run: Ray Train goes on with a training whose name it finds in storage."""
    filesystem: pyarrow.fs.FileSystem | None = None
    retries: int = 2
    """How often workers that died are started again."""
    gpus: float | None = None
    """GPUs of one worker; when not given, an equal share of those there are."""
    min_workers: int | None = None
    """Where given, the training takes between so many and ``workers``, as the cluster has room."""


class RayContext:
    """The epoch loop's view of a Ray Train worker."""

    def __init__(self, tracker: Tracker, note: Note | None) -> None:
        context = ray.train.get_context()
        self._tracker, self._note = tracker, note
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        # Asked without a GPU of its own, Ray would name the first of the machine.
        self.device = "cpu" if own_device() == "cpu" else str(get_device())

    def report(self, metrics: Mapping[str, float], checkpoint_dir: Path | None) -> None:
        """Hand the epoch's figures, and the first rank's checkpoint, to Ray."""
        checkpoint = None
        if checkpoint_dir is not None:
            checkpoint = ray.train.Checkpoint.from_directory(checkpoint_dir)
            self._tracker.epoch(metrics)
            if self._note is not None:
                self._note(metrics)
        ray.train.report(dict(metrics), checkpoint=checkpoint)

    @contextmanager
    def load_checkpoint(self) -> Iterator[Path | None]:
        """The last checkpoint as a local folder, or None."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)


def train_bundle(order: TrainOrder) -> dict[str, bytes]:
    """Train as ordered, keeping checkpoints with the run; see `train`."""
    task = task_of(order.lake, order.run_id, order.rows, order.config)
    filesystem, storage = checkpoint_place(order.lake, order.run_id)
    place = TrainPlace(
        order.workers,
        storage,
        order.run_id,
        filesystem,
        gpus=order.config.get(GPUS),
        min_workers=order.config.get(MIN_WORKERS),
    )
    return train(replace(task, note=order.note, warn=order.note), place, order.fields)


def train(
    task: TrainTask, place: TrainPlace, fields: Mapping[str, object] = _NOTHING
) -> dict[str, bytes]:
    """Train on a running Ray; returns the bundle of the best epoch, `OUTCOME_FILE`, `SPENT_FILE`.

    ``fields`` stand in every log line of the workers.

    Called again with the same ``run_name``, it goes on where the last checkpoint stopped.

    Raises:
        RunError: when workers keep failing.
    """
    # Ray puts the task into its object store once; workers share one copy of the rows.
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"task": ray.put(task), "fields": dict(fields)},
        scaling_config=_scaling(place),
        torch_config=_backend(place),
        run_config=RunConfig(
            name=place.run_name,
            storage_path=place.storage,
            storage_filesystem=place.filesystem,
            failure_config=FailureConfig(
                max_failures=place.retries if place.min_workers is None else _LOSSES
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise _ours(place.run_name, error) from error
    found = cast("Result", result)
    if found.checkpoint is None or found.return_value is None:
        raise RunError("Training ended without a checkpoint", where=place.run_name)
    with found.checkpoint.as_directory() as folder:
        last = (Path(folder) / BEST_FILE).read_bytes(), (Path(folder) / PROGRESS_FILE).read_bytes()
    fitted, spent = found.return_value
    # Made in this process: it has loaded torch already, and the workers are gone.
    meter = Meter()
    files = finish_task(task, last, fitted)
    return with_spent(files, spent + meter.read())


def _train_worker(loop: Mapping[str, Any]) -> tuple[Fitted, Spent]:
    """One worker's whole training, and what all spent; the first rank's answer is the run's."""
    meter = Meter()
    configure_logs()
    task: TrainTask = ray.get(loop["task"])
    first = ray.train.get_context().get_world_rank() == 0
    with (
        log_fields(loop["fields"]),
        open_tracker(task.tracking if first else None, task.warn) as tracker,
    ):
        fitted = fit_task(task, RayContext(tracker, task.note))
    return fitted, sum(ranks.gather_objects(meter.read()), Spent())


def _scaling(place: TrainPlace) -> ScalingConfig:
    """A GPU for each worker, or a share of one, or a CPU, or a share of one.

    A fixed number of workers is part of the result, so a small machine shares what it has. Of an
    elastic number those run that have whole ones: Ray counts how many fit, when the training
    begins, when a worker was lost, and every minute; it starts them anew from the last checkpoint.
    """
    workers = place.workers if place.min_workers is None else (place.min_workers, place.workers)
    resources = {"CPU": _cpus(place.workers) if place.min_workers is None else 1.0}
    gpus = _gpus(place)
    if not gpus:
        return ScalingConfig(num_workers=workers, resources_per_worker=resources)
    return ScalingConfig(
        num_workers=workers, use_gpu=True, resources_per_worker={**resources, "GPU": gpus}
    )


def _cpus(workers: int) -> float:
    """CPUs of one worker: one, or an equal share where Ray has fewer than workers."""
    there = ray.cluster_resources().get("CPU", 0.0)
    return 1.0 if there >= workers or not there else round(there / workers, 2)


def _gpus(place: TrainPlace) -> float:
    """GPUs of one worker: as asked for, or one, or an equal share of fewer; none where none are."""
    if place.gpus is not None:
        return place.gpus
    there: float = ray.cluster_resources().get("GPU", 0.0)
    if place.min_workers is not None:
        return min(there, 1.0)
    return min(there / place.workers, 1.0)


def _backend(place: TrainPlace) -> TorchConfig:
    """NCCL where each worker has a GPU of its own (it refuses to share one), otherwise gloo."""
    return TorchConfig(backend="nccl" if _gpus(place) >= 1 else "gloo")


def checkpoint_place(lake: str, run_id: str) -> tuple[pyarrow.fs.FileSystem | None, str]:
    """Where Ray Train keeps the run's checkpoints: with the run, in the lake."""
    storage = open_storage(lake)
    path = train_prefix(run_id)
    if storage.local_path is not None:
        return None, str(storage.local_path.resolve() / path)
    options = storage.delta_options
    # Credentials come from the usual chain on every node, so that none travels in a plan.
    filesystem = pyarrow.fs.S3FileSystem(
        endpoint_override=options.get("AWS_ENDPOINT_URL"), region=options["AWS_REGION"]
    )
    return filesystem, f"{storage.root.removeprefix('s3://')}/{path}"


def _ours(run: str, error: TrainingFailedError) -> RaywardError:
    """The error to show: one of ours as it is, of others only classes and places."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    causes = list(failures.values())
    controller = getattr(error, "controller_failure", None)
    if controller is not None:
        causes.append(controller)
    # Ray hands on what a worker raised within an error that has the traceback as its text.
    raised = [(getattr(one, "_base_exc", one), str(one)) for one in causes]
    ours = next((cause for cause, _ in raised if isinstance(cause, RaywardError)), None)
    if ours is not None:
        return ours
    reasons = sorted({told(cause, trace) for cause, trace in raised})
    return failure(run, "; ".join(reasons) or type(error).__name__)
