"""A training as its workers see it, and its way to a bundle, wherever it runs; loads torch."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from cluster.fetch import Fetcher
from cluster.sources import read_source
from cluster.tracking import Tracking
from cluster.train_methods import METHODS, Method
from schemas.bundle import (
    CONFIG_FILE,
    OUTCOME_FILE,
    WEIGHTS_FILE,
    Preprocessing,
    parse_config,
)
from schemas.errors import RunError
from schemas.rejects import reject_row
from workers.training import ranks
from workers.training.context import TrainContext
from workers.training.examples import Examples, Fetch
from workers.training.feeding import Origin

CACHE_BYTES = 64 * 2**30
"""Decoded images a worker keeps in memory at most; the rest is decoded again every epoch."""

Note = Callable[[Mapping[str, float]], object]
Warn = Callable[[str], object]


@dataclass(frozen=True)
class TrainTask:
    """What is trained, on which rows; travels to every worker."""

    method: Method[Any, Any]
    rows: pa.Table
    """Columns ``image_id``, ``uri``, ``frame``, ``part``, ``group``, those of what is learned, and
    what ``fetch`` needs."""
    fetch: Fetch
    origin: Origin = field(default_factory=Origin)
    note: Note | None = None
    """Told the figures of every finished epoch by the first worker."""
    tracking: Tracking | None = None
    """Where the first worker's figures are tracked."""
    warn: Warn | None = None
    """Told what went wrong without ending the training."""
    cache_bytes: int = CACHE_BYTES


@dataclass(frozen=True)
class Fitted:
    """What the workers tell of a finished training, as JSON values."""

    preprocessing: Mapping[str, Any]
    rejects: list[dict[str, Any]]
    """Of all ranks."""
    history: list[dict[str, float]]


def task_of(lake: str, run_id: str, rows: pa.Table, config: Mapping[str, Any]) -> TrainTask:
    """The training that a plan's parameters and rows describe."""
    bundle = config["bundle"]
    method = METHODS[config.get("method", "train")](config["training"], bundle)
    return TrainTask(
        method,
        rows,
        Fetcher(lake).fetch,
        _origin(config),
        tracking=Tracking(
            lake=lake,
            model=bundle["name"],
            run_id=run_id,
            experiment=config.get("experiment") or bundle["name"],
            settings={"data": bundle["data"], **method.config.to_dict()},
            images=pc.sum(pc.equal(rows["part"], "train")).as_py() or 0,
        ),
    )


def _origin(config: Mapping[str, Any]) -> Origin:
    """The weights to start from; of a bundle also what it made of pixels."""
    uri = config.get("start_uri")
    if not uri:
        return Origin()
    weights = read_source(uri)
    if not config.get("start_id"):
        return Origin(weights)
    folder = uri.removesuffix(f"/{WEIGHTS_FILE}")
    return Origin(
        weights, parse_config(read_source(f"{folder}/{CONFIG_FILE}"), folder).preprocessing
    )


def fit_task(task: TrainTask, context: TrainContext) -> Fitted:
    """One worker's whole training; the first rank's answer is complete."""
    method, examples = task.method, Examples(task.rows, task.fetch)
    with one_thread() if context.device == "cpu" else nullcontext():
        fitted = method.fit(examples, context, task.origin, task.cache_bytes)
    places = pa.array([one.row for one in fitted.rejects], pa.int64())
    rejected = examples.rows.take(places).to_pylist()
    rejects = [
        reject_row(row, reject.reason, stage=method.kind, subject=method.facts.fingerprint)
        for row, reject in zip(rejected, fitted.rejects, strict=True)
    ]
    every = [one for part in ranks.gather_objects(rejects) for one in part]
    return Fitted(
        preprocessing=fitted.preprocessing.model_dump(mode="json"),
        rejects=sorted(every, key=lambda one: (one["uri"], one["image_id"])),
        history=fitted.progress.history,
    )


def finish_task(task: TrainTask, checkpoint: tuple[bytes, bytes], told: Fitted) -> dict[str, bytes]:
    """The files of the best epoch's bundle, and `OUTCOME_FILE`.

    ``checkpoint`` is the content of the last checkpoint's `BEST_FILE` and `PROGRESS_FILE`.
    """
    with one_thread():
        files = task.method.finish(
            checkpoint,
            Preprocessing.model_validate(told.preprocessing),
            Examples(task.rows, task.fetch),
        )
    outcome = {"rejects": told.rejects, "history": told.history}
    return {**files, OUTCOME_FILE: json.dumps(outcome).encode()}


def own_device() -> str:
    """The device of a training in this process: a GPU where Ray gave it one, or a share of one.

    A process of Ray sees every GPU of its machine, so what it may use is what Ray says it has: none
    where it asked for none, as trials do with ``gpus_per_trial: 0``. A process that Ray did not
    start takes the first GPU there is.
    """
    if not torch.cuda.is_available():
        return "cpu"
    if not ray.is_initialized():
        return "cuda:0"
    context = ray.get_runtime_context()
    is_driver = context.get_task_id() is None and context.get_actor_id() is None
    # Ray shows a process that has GPUs those alone, so its first is number 0.
    return "cuda:0" if is_driver or context.get_accelerator_ids().get("GPU") else "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread, as a worker that holds one CPU does everywhere.

    Sums over several threads come in another order, so the number of threads is part of a result.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def failure(run: str, cause: str) -> RunError:
    """The error of a training that ended for a reason no error of ours explains.

    ``cause`` is what may be told of it, see `cluster.foreign`.
    """
    return RunError(
        "Training failed",
        where=run,
        got=cause,
        remedy="the log of the workers says more; run again to go on from the last checkpoint",
    )
