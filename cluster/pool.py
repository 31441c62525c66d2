"""Ray as a pool of processes: one actor a slot, a bounded window of shards, deaths survived.

The driver hands one shard at a time to each actor, so that the shard an actor dies on is known.
A shard that kills two processes is probed image by image in processes of its own, and the killer
is rejected; memory kills and lost nodes say nothing about the images and only cost a retry.
"""

from collections import Counter, deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import ray
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from cluster.lake.runs import LakeRun
from cluster.progress import Progress
from cluster.ray_session import RaySession
from cluster.shards import (
    ProbeProcess,
    ShardOutcome,
    ShardProcess,
    ShardTask,
    encode_rows,
    finish_run,
)
from cluster.storage import open_storage
from cluster.train import train_on_ray
from cluster.works import WORKS
from schemas.errors import ShardFailed
from schemas.protocols import Run
from schemas.reasons import RejectReason
from schemas.specs.base import Execution

_DEATHS_BEFORE_PROBE = 2
_ERRORS_BEFORE_FAILURE = 2


class RayPool:
    """Implements `schemas.protocols.Pool`; Ray starts with the first work there is."""

    def __init__(self, lake: str, session: RaySession, progress: Progress) -> None:
        self._lake, self._session, self._progress = lake, session, progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.stop()

    def run_shards(self, run: Run, execution: Execution) -> None:
        """Compute every pending shard of a run and put its receipt.

        Raises:
            ShardFailed: if a shard fails for a reason no single image explains.
        """
        lake_run = LakeRun(open_storage(self._lake), run.id, resumed=run.resumed)
        pending = lake_run.pending()
        settled = lake_run.plan.inputs.num_rows - sum(
            lake_run.rows(shard).num_rows for shard in pending
        )
        if not pending:
            return
        self._session.start()
        self._progress.start(run.plan.name, lake_run.plan.inputs.num_rows, run.plan.unit, settled)
        try:
            _ShardRun(self._lake, lake_run, execution, self._progress).compute(pending)
        finally:
            self._progress.finish()

    def finish(self, run: Run) -> None:
        """Compute the finishing step of the run's kind, if it has one that is not done yet."""
        lake_run = LakeRun(open_storage(self._lake), run.id, resumed=run.resumed)
        if WORKS[run.plan.kind].finish is not None and not lake_run.is_finished():
            self._session.start()
            ray.get(ray.remote(finish_run).remote(self._lake, run.id))

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        """Train with ``workers`` processes; returns the files of the finished training."""
        self._session.start()
        return train_on_ray(self._lake, run, config, workers, self._progress)


class _ShardRun:
    """The shards of one run while they are computed."""

    def __init__(self, lake: str, run: LakeRun, execution: Execution, progress: Progress) -> None:
        self._run, self._execution, self._progress = run, execution, progress
        plan = run.plan
        self._arguments = (lake, run.id, plan.kind, dict(plan.params))
        resources = {"num_cpus": 1, "num_gpus": execution.gpus_per_worker}
        self._actor: Any = ray.remote(ShardProcess).options(max_restarts=0, **resources)
        self._probe: Any = ray.remote(ProbeProcess).options(max_restarts=0, **resources)
        self._queue: deque[str] = deque()
        self._working: dict[ray.ObjectRef[ShardOutcome], tuple[ActorHandle[Any], str]] = {}
        self._deaths: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._condemned: dict[str, dict[int, RejectReason]] = {}

    def compute(self, pending: list[str]) -> None:
        """Compute shards until none is left."""
        self._queue.extend(pending)
        for _ in range(min(self._slots(), len(pending))):
            self._hire()
        while self._working:
            (ready,), _ = ray.wait(list(self._working), num_returns=1)
            actor, shard = self._working.pop(ready)
            try:
                outcome = ray.get(ready)
            except OutOfMemoryError:
                self._make_smaller(shard, RejectReason.OUT_OF_MEMORY)
                self._hire()
            except RayActorError as error:
                self._bury(shard, error)
                self._hire()
            except RayTaskError as error:
                self._note_error(shard, error)
                self._hand_out(actor)
            else:
                self._progress.advance(outcome.done, outcome.rejected)
                self._hand_out(actor)

    def _slots(self) -> int:
        """Processes that fit the cluster, or as many as the job asks for."""
        resources = ray.cluster_resources()
        gpus = self._execution.gpus_per_worker
        fitting = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1)
        return max(1, min(int(fitting), self._execution.workers or int(fitting)))

    def _hire(self) -> None:
        """Start a process, if there is a shard for it."""
        if self._queue:
            self._hand_out(self._actor.remote(*self._arguments))

    def _hand_out(self, actor: "ActorHandle[Any]") -> None:
        """Give a process its next shard, or let it go."""
        if not self._queue:
            ray.kill(actor)
            return
        shard = self._queue.popleft()
        task = ShardTask(shard, encode_rows(self._run.rows(shard)), self._condemned.get(shard, {}))
        self._working[actor.run.remote(task)] = actor, shard

    def _bury(self, shard: str, error: RayActorError) -> None:
        """A process died while it computed ``shard``; decide what that says about the shard."""
        if getattr(error, "actor_init_failed", False):
            raise ShardFailed(
                "A worker process could not start", where=self._run.plan.name, got=_cause(error)
            ) from error
        if _memory_kill(error):
            self._make_smaller(shard, RejectReason.OUT_OF_MEMORY)
            return
        if not error.preempted and not _node_lost(error):
            self._deaths[shard] += 1
        if self._deaths[shard] < _DEATHS_BEFORE_PROBE:
            self._queue.appendleft(shard)
            return
        self._deaths[shard] = 0
        killers = self._find_killers(shard)
        if killers:
            self._condemned.setdefault(shard, {}).update(
                dict.fromkeys(killers, RejectReason.CRASHED_WORKER)
            )
            self._queue.appendleft(shard)
        else:
            self._make_smaller(shard, RejectReason.CRASHED_WORKER)

    def _find_killers(self, shard: str) -> list[int]:
        """Rows of a shard whose image ends the process that decodes it."""
        rows, killers = self._run.rows(shard), []
        spared = self._condemned.get(shard, {})
        kind, params = self._arguments[2], self._arguments[3]
        probe = self._probe.remote(kind, params)
        for row in range(rows.num_rows):
            if row in spared:
                continue
            try:
                ray.get(probe.try_one.remote(encode_rows(rows.slice(row, 1))))
            except RayActorError:
                killers.append(row)
                probe = self._probe.remote(kind, params)
            except RayTaskError:
                continue  # an exception is no crash; the shard itself will say more
        ray.kill(probe)
        return killers

    def _make_smaller(self, shard: str, reason: RejectReason) -> None:
        """Halve a shard that is too much for a process; a single image is rejected."""
        if self._run.rows(shard).num_rows == 1:
            self._condemned[shard] = {0: reason}
            self._queue.appendleft(shard)
        elif self._run.halve(shard):
            halves = [f"{shard}.0", f"{shard}.1"]
            self._inherit(shard, halves)
            self._queue.extendleft(reversed(halves))

    def _inherit(self, shard: str, halves: list[str]) -> None:
        first = self._run.rows(halves[0]).num_rows
        for row, reason in self._condemned.pop(shard, {}).items():
            half, place = (halves[0], row) if row < first else (halves[1], row - first)
            self._condemned.setdefault(half, {})[place] = reason

    def _note_error(self, shard: str, error: RayTaskError) -> None:
        """An exception left the shard function: the store failed, or the code is wrong."""
        self._errors[shard] += 1
        if self._errors[shard] >= _ERRORS_BEFORE_FAILURE:
            raise ShardFailed(
                "A shard failed",
                where=f"{self._run.id}, shard {shard}",
                got=_cause(error),
                remedy="run the job again once the cause is removed; finished shards stay done",
            ) from error
        self._queue.append(shard)


def _cause(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"


def _memory_kill(error: RayActorError) -> bool:
    return "low memory" in str(error) or "OOM" in str(error)


def _node_lost(error: RayActorError) -> bool:
    return "node" in str(error).lower() and "died" in str(error).lower()
