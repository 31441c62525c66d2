"""One shard in the process that computes it: fetch, compute, write, put the receipt."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cluster.fetch import Fetcher
from cluster.lake.runs import FINISH, LakeRun, RunWriter
from cluster.storage import open_storage
from cluster.works import WORKS, Params
from schemas.errors import RaywardError, RejectedImage
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.reasons import RejectReason

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


class ShardProcess:
    """Computes shards of one run, one after the other; holds what its kind loads once."""

    def __init__(self, lake: str, run_id: str, kind: str, params: Mapping[str, Any]) -> None:
        self._writer = RunWriter(open_storage(lake), run_id)
        self._params = params
        self._fetcher = Fetcher(lake)
        self._function = _loaded(WORKS[kind].load, params)

    def run(self, task: ShardTask) -> ShardOutcome:
        """Compute a shard and put its receipt."""
        started_s = time.process_time()
        rows = decode_rows(task.rows)
        result = self._function(rows, _blobs(self._fetcher, rows, task.condemned))
        write_files(result, self._params)
        self._writer.record(task.shard, result, cpu_s=time.process_time() - started_s)
        return ShardOutcome(result.done, result.rejected, result.gone)


class ProbeProcess:
    """Decodes single images to find the one that kills its process."""

    def __init__(self, lake: str, kind: str, params: Mapping[str, Any]) -> None:
        work = WORKS[kind]
        self._function = _loaded(work.probe or work.load, params)
        self._fetcher = Fetcher(lake)

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
    result = work.finish(run.plan.params)(run.staged_tables())
    write_files(result, run.plan.params)
    run.record(FINISH, result)


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
