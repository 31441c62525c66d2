"""One shard in the process that computes it: fetch, compute, write, put the receipt."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from cluster.fetch import Fetcher
from cluster.lake.runs import FINISH, Cost, LakeRun, RunWriter
from cluster.storage import open_storage
from cluster.watching.logs import TOLD, configure_logs, log_fields
from cluster.watching.metrics import ShardFigures
from cluster.watching.stalls import Limits, Reporter
from cluster.watching.words import say
from cluster.works import WORKS, Params
from schemas.errors import RaywardError, RejectedImage
from schemas.plan import Blob, PreparedPixels, ShardFunction, ShardResult
from schemas.reasons import RejectReason
from workers.stages import Stage, Stages

_log = logging.getLogger(__name__)
_WHY = {
    RejectReason.CRASHED_WORKER: "it ended the process that decoded it",
    RejectReason.OUT_OF_MEMORY: "it needs more memory than a process has",
}


@dataclass(frozen=True)
class ShardTask:
    """One shard as it travels to a worker."""

    shard: str
    rows: bytes
    """Its slice of the plan's inputs as an Arrow stream: a slice alone would drag all along."""
    condemned: Mapping[int, RejectReason]
    """Rows that must not be decoded again, and why."""


@dataclass(frozen=True)
class ShardOutcome:
    """What the driver is told."""

    done: int
    rejected: int
    gone: int
    figures: ShardFigures = field(default_factory=ShardFigures)


class ShardProcess:
    """Computes shards of one run, one after the other; holds what its kind loads once."""

    def __init__(
        self,
        lake: str,
        run_id: str,
        kind: str,
        params: Mapping[str, Any],
        gpus: float = 0.0,
    ) -> None:
        """``gpus`` are those that the process holds."""
        self._writer = RunWriter(open_storage(lake), run_id)
        self._params, self._gpus = params, gpus
        self._fetcher = Fetcher(lake)
        self._run_id = run_id
        self._fields: dict[str, object] = {"kind": kind, "run_id": run_id}
        self._reporter: Reporter | None = None
        self._function = _loaded(WORKS[kind].load, params)

    def ready(self, job: str, limits: Limits) -> str:
        """Begin to log and to be watched as a process of ``job``; returns the node it runs on."""
        configure_logs()
        node: str = ray.get_runtime_context().get_node_id()
        self._fields |= {"job": job, "node": node}
        self._reporter = Reporter(limits, partial(say, self._run_id))
        return node

    def run(self, task: ShardTask) -> ShardOutcome:
        """Compute a shard and put its receipt."""
        stages = Stages()
        if self._reporter:
            self._reporter.begin(task.shard, stages)
        try:
            with log_fields({**self._fields, "shard": task.shard}):
                return self._run(task, stages)
        finally:
            if self._reporter:
                self._reporter.end()

    def _run(self, task: ShardTask, stages: Stages) -> ShardOutcome:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        rows = decode_rows(task.rows)
        with stages.during(Stage.FETCH):
            blobs = _blobs(self._fetcher, rows, task.condemned)
        with stages.current(), stages.during(Stage.COMPUTE):
            result = self._function(rows, blobs)
        with stages.during(Stage.WRITE):
            write_files(result, self._params)
            cost = Cost(
                cpu_s=time.process_time() - started_cpu_s,
                gpu_s=self._gpus * (time.perf_counter() - started_s),
            )
            self._writer.record(task.shard, result, cost)
        figures = ShardFigures(
            _bytes_of(blobs),
            _reasons_of(result),
            {stage.value: seconds for stage, seconds in stages.seconds.items()},
            time.perf_counter() - started_s,
        )
        _log.info("shard done", extra={TOLD: _told(result, figures)})
        return ShardOutcome(result.done, result.rejected, result.gone, figures)


class ProbeProcess:
    """Decodes single images to find the one that kills its process."""

    def __init__(self, lake: str, kind: str, params: Mapping[str, Any]) -> None:
        work = WORKS[kind]
        self._function = _loaded(work.probe or work.load, params)
        self._fetcher = Fetcher(lake)

    def ready(self) -> None:
        """Answer: the process has started, and what it needs is loaded."""

    def try_one(self, row: bytes) -> None:
        """Decode the one image of ``row``; the result is thrown away."""
        rows = decode_rows(row)
        self._function(rows, _blobs(self._fetcher, rows, {}))


def _loaded(load: Callable[[Params], ShardFunction], params: Params) -> ShardFunction:
    """What ``load`` makes, or a function that raises the error of ours that ``load`` raised.

    Of an error raised while an actor starts Ray hands on the text alone.
    """
    try:
        return load(params)
    except RaywardError as error:
        raised = error

    def fail(_rows: pa.Table, _blobs: Sequence[Blob]) -> ShardResult:
        raise raised

    return fail


def finish_run(lake: str, run_id: str) -> None:
    """Compute a run's finishing step over its staged tables and put its receipt."""
    run = LakeRun(open_storage(lake), run_id, resumed=True)
    work = WORKS[run.plan.kind]
    if work.finish is None:
        return
    configure_logs()
    fields = {"kind": run.plan.kind, "job": run.plan.name, "run_id": run_id, "shard": FINISH}
    with log_fields(fields):
        started_s = time.process_time()
        result = work.finish(run.plan.params)(run.staged_tables())
        write_files(result, run.plan.params)
        run.record(FINISH, result, Cost(cpu_s=time.process_time() - started_s))


def encode_rows(rows: pa.Table) -> bytes:
    """Rows as an Arrow stream that holds nothing else."""
    for place, column in enumerate(rows.columns):
        if pa.types.is_dictionary(column.type):  # it would travel whole with every slice
            plain = column.cast(column.type.value_type)
            rows = rows.set_column(place, rows.column_names[place], plain)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return bytes(sink.getvalue())


def decode_rows(data: bytes) -> pa.Table:
    """The rows of an Arrow stream."""
    return pa.ipc.open_stream(data).read_all()


def write_files(result: ShardResult, params: Mapping[str, Any]) -> None:
    """Write the files a shard made, for kinds that make files."""
    if not result.files:
        return
    target = open_storage(params["target"])
    for path, data in result.files.items():
        target.put(path, data)


def _blobs(
    fetcher: Fetcher, rows: pa.Table, condemned: Mapping[int, RejectReason]
) -> Sequence[Blob]:
    blobs = fetcher.fetch(rows, without=frozenset(condemned))
    for row, reason in condemned.items():
        blobs[row] = RejectedImage(reason, _WHY[reason])
    return blobs


def _bytes_of(blobs: Sequence[Blob]) -> int:
    """Bytes that were fetched; frames of one file share theirs."""
    fetched = {
        id(data): len(data)
        for data in (one.data if isinstance(one, PreparedPixels) else one for one in blobs)
        if isinstance(data, bytes)
    }
    return sum(fetched.values())


def _reasons_of(result: ShardResult) -> dict[str, int]:
    """Rejects by reason."""
    rejects = result.tables.get("rejects")
    if rejects is None or not rejects.num_rows:
        return {}
    counted = pc.value_counts(rejects["reason"].combine_chunks()).to_pylist()
    return {one["values"]: one["counts"] for one in counted}


def _told(result: ShardResult, figures: ShardFigures) -> dict[str, object]:
    """What a log line tells of a shard that is done."""
    seconds = {stage: round(one, 3) for stage, one in figures.seconds.items()}
    return {"done": result.done, "rejected": result.rejected, "seconds": seconds}
