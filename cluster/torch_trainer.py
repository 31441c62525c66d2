"""Ray Train's TorchTrainer around the epoch loop; loads torch, so the driver never imports it.

Ray starts one process per worker, joins them in a process group and keeps the checkpoints that
the first reports. When a worker dies, all are started again and go on from the last checkpoint;
when the driver dies, a run of the same name does so too.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.fs
import ray
import ray.train
import torch
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

from cluster.fetch import Fetcher
from cluster.lake.layout import train_prefix
from cluster.sources import read_source
from cluster.storage import open_storage
from cluster.train_order import TrainOrder
from schemas.bundle import OUTCOME_FILE, Preprocessing
from schemas.errors import RunError
from schemas.rejects import reject_row
from workers.models.classifier.bundling import BundleFacts
from workers.models.classifier.finishing import finish_bundle
from workers.models.classifier.fitting import fit_classifier
from workers.training import ranks
from workers.training.checkpoint import BEST_FILE, PROGRESS_FILE
from workers.training.config import TrainConfig
from workers.training.examples import Examples, Fetch

CACHE_BYTES = 4 * 2**30
"""Decoded images a worker keeps in memory at most; the rest is decoded again every epoch."""


Note = Callable[[Mapping[str, float]], object]


@dataclass(frozen=True)
class TrainTask:
    """What is trained, on which rows; travels to every worker."""

    config: TrainConfig
    rows: pa.Table
    """Columns ``image_id``, ``uri``, ``frame``, ``part``, ``label``, ``group`` and what ``fetch``
    needs."""
    fetch: Fetch
    facts: BundleFacts
    start: bytes | None = None
    """A safetensors checkpoint to start from."""
    note: Note | None = None
    """Told the figures of every finished epoch by the first worker."""
    cache_bytes: int = CACHE_BYTES


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


class RayContext:
    """The epoch loop's view of a Ray Train worker."""

    def __init__(self, note: Note | None) -> None:
        context = ray.train.get_context()
        self._note = note
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device = str(get_device())

    def report(self, metrics: Mapping[str, float], checkpoint_dir: Path | None) -> None:
        """Hand the epoch's figures, and the first rank's checkpoint, to Ray."""
        checkpoint = None
        if checkpoint_dir is not None:
            checkpoint = ray.train.Checkpoint.from_directory(checkpoint_dir)
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
    config = TrainConfig.from_dict(order.config["training"])
    start = order.config.get("start_uri")
    board = order.board
    task = TrainTask(
        config,
        order.rows,
        Fetcher(order.lake).fetch,
        BundleFacts(
            **order.config["bundle"], architecture=config.architecture, classes=config.classes
        ),
        start=read_source(start) if start else None,
        note=lambda figures: ray.get(board.note.remote(figures)),
    )
    filesystem, storage = checkpoint_place(order.lake, order.run_id)
    return train(task, TrainPlace(order.workers, storage, order.run_id, filesystem))


def train(task: TrainTask, place: TrainPlace) -> dict[str, bytes]:
    """Train on a running Ray; returns the bundle of the best epoch, and `OUTCOME_FILE`.

    Called again with the same ``run_name``, it goes on where the last checkpoint stopped.

    Raises:
        RunError: when workers keep failing.
    """
    # Ray puts the task into its object store once; workers share one copy of the rows.
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"task": ray.put(task)},
        scaling_config=_scaling(place.workers),
        torch_config=_backend(place.workers),
        run_config=RunConfig(
            name=place.run_name,
            storage_path=place.storage,
            storage_filesystem=place.filesystem,
            failure_config=FailureConfig(max_failures=place.retries),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise RunError(
            "Training failed",
            where=place.run_name,
            got=_cause(error),
            remedy="the log of the workers says more; run again to go on from the last checkpoint",
        ) from error
    told: Mapping[str, Any] = cast("Result", result).return_value or {}
    if result.checkpoint is None:
        raise RunError("Training ended without a checkpoint", where=place.run_name)
    files = _finish(task, result.checkpoint, told["preprocessing"])
    outcome = {"rejects": told["rejects"], "history": told["history"]}
    return {**files, OUTCOME_FILE: json.dumps(outcome).encode()}


def _train_worker(loop: Mapping[str, Any]) -> dict[str, Any]:
    """One worker's whole training; the first rank's answer is the run's."""
    task: TrainTask = ray.get(loop["task"])
    context = RayContext(task.note)
    if context.device == "cpu":
        torch.set_num_threads(1)
    examples = Examples(task.rows, task.fetch)
    fitted = fit_classifier(
        task.config, examples, context, cache_bytes=task.cache_bytes, start=task.start
    )
    places = pa.array([one.row for one in fitted.rejects], pa.int64())
    rejected = examples.rows.take(places).to_pylist()
    rejects = [
        reject_row(row, reject.reason, stage="train", subject=task.facts.fingerprint)
        for row, reject in zip(rejected, fitted.rejects, strict=True)
    ]
    every = [one for part in ranks.gather_objects(rejects) for one in part]
    return {
        "rejects": sorted(every, key=lambda one: (one["uri"], one["image_id"])),
        "preprocessing": fitted.preprocessing.model_dump(mode="json"),
        "history": fitted.progress.history,
    }


def _finish(
    task: TrainTask, checkpoint: ray.train.Checkpoint, preprocessing: Mapping[str, Any]
) -> dict[str, bytes]:
    """Make the bundle in this process: it has loaded torch already, and the workers are gone."""
    torch.set_num_threads(1)
    with checkpoint.as_directory() as folder:
        best = (Path(folder) / BEST_FILE).read_bytes()
        progress = (Path(folder) / PROGRESS_FILE).read_bytes()
    return finish_bundle(
        (best, progress),
        Preprocessing.model_validate(preprocessing),
        task.facts,
        task.config,
        Examples(task.rows, task.fetch),
    )


def _scaling(workers: int) -> ScalingConfig:
    """A GPU for each worker, or a share of one, or a CPU, or a share of one.

    The number of workers is part of the result, so a small machine shares what it has.
    """
    gpus = ray.cluster_resources().get("GPU", 0.0)
    if not gpus:
        return ScalingConfig(num_workers=workers, resources_per_worker={"CPU": _cpus(workers)})
    share = 1.0 if gpus >= workers else gpus / workers
    return ScalingConfig(
        num_workers=workers,
        use_gpu=True,
        resources_per_worker={"CPU": _cpus(workers), "GPU": share},
    )


def _cpus(workers: int) -> float:
    """CPUs of one worker: one, or an equal share where Ray has fewer than workers."""
    there = ray.cluster_resources().get("CPU", 0.0)
    return 1.0 if there >= workers or not there else round(there / workers, 2)


def _backend(workers: int) -> TorchConfig:
    """NCCL where each worker has a GPU of its own (it refuses to share one), otherwise gloo."""
    gpus = ray.cluster_resources().get("GPU", 0.0)
    return TorchConfig(backend="nccl" if gpus >= workers else "gloo")


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


def _cause(error: Exception) -> str:
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    causes = sorted({f"{type(one).__name__}: {one}" for one in failures.values()})
    return "; ".join(cause[:300] for cause in causes) or str(error)[:300]
