"""The shards of one run on Ray: one actor a slot, one shard at a time each, deaths survived.

Handing an actor a single shard tells which shard it died on. A shard that ends two processes is
probed image by image in processes of its own, and the killer is rejected. A shard that is too much
for a process's memory is halved, down to a single image that is rejected. A lost node says nothing
about its images and costs a retry only.
"""

from collections import Counter, deque
from math import ceil
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from cluster.lake.runs import LakeRun
from cluster.progress import Progress
from cluster.ray_failures import as_ours, failed_to_start, is_lost_node, is_memory_kill
from cluster.shards import ProbeProcess, ShardOutcome, ShardProcess, ShardTask, encode_rows
from cluster.works import WORKS
from schemas.errors import RunError, ShardFailed
from schemas.reasons import RejectReason
from schemas.specs.base import Execution

_DEATHS_BEFORE_PROBE = 2
_ERRORS_BEFORE_FAILURE = 2
_SHARDS_A_PROCESS = 3
"""A process that computes fewer takes longer to start than it saves; a night's few go to one."""
_LOSSES_BEFORE_FAILURE = 10
"""Times a shard may lose its node: a spot node now and then is no reason to give up."""


class ShardRun:
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
        self._losses: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._condemned: dict[str, dict[int, RejectReason]] = {}

    def compute(self, pending: list[str]) -> None:
        """Compute shards until none is left."""
        self._queue.extend(pending)
        for _ in range(min(self._slots(), self._worthwhile(len(pending)))):
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
                self._progress.advance(outcome.done + outcome.gone, outcome.rejected)
                self._hand_out(actor)

    def _slots(self) -> int:
        """Processes that fit the cluster, or as many as the job asks for.

        Raises:
            RunError: if not a single one fits.
        """
        resources = ray.cluster_resources()
        gpus = self._execution.gpus_per_worker
        cpus = int(resources.get("CPU", 0))
        fitting = min(cpus, int(resources.get("GPU", 0) / gpus)) if gpus else cpus
        if fitting < 1:
            raise RunError(
                "No process fits the cluster",
                where=self._run.plan.name,
                got=f"{cpus} CPUs and {resources.get('GPU', 0):g} GPUs",
                remedy="lower execution.gpus_per_worker, or run it where there are GPUs",
            )
        return min(fitting, self._execution.workers or fitting)

    def _worthwhile(self, shards: int) -> int:
        """Processes that a number of shards is worth, unless the job says how many."""
        if self._execution.workers or self._execution.gpus_per_worker:
            return shards
        return ceil(shards / _SHARDS_A_PROCESS)

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
        if failed_to_start(error):
            raise as_ours(error, self._run.id) from error
        if is_memory_kill(error):
            self._make_smaller(shard, RejectReason.OUT_OF_MEMORY)
            return
        if is_lost_node(error):
            self._losses[shard] += 1
            if self._losses[shard] > _LOSSES_BEFORE_FAILURE:
                raise as_ours(error, f"{self._run.id}, shard {shard}") from error
            self._queue.appendleft(shard)
            return
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
        lake, _, *work = self._arguments
        probe = self._probe.remote(lake, *work)
        todo = deque(row for row in range(rows.num_rows) if row not in spared)
        while todo:
            try:
                ray.get(probe.try_one.remote(encode_rows(rows.slice(todo[0], 1))))
            except OutOfMemoryError:
                probe = self._probe.remote(lake, *work)  # the row is tried with the shard's half
            except RayActorError as error:
                if failed_to_start(error):
                    raise as_ours(error, f"{self._run.id}, probe") from error
                probe = self._probe.remote(lake, *work)
                if is_lost_node(error):
                    continue
                if not is_memory_kill(error):
                    killers.append(todo[0])
            except RayTaskError:
                pass  # an exception is no crash; the shard itself will say more
            todo.popleft()
        ray.kill(probe)
        return killers

    def _make_smaller(self, shard: str, reason: RejectReason) -> None:
        """Halve a shard that is too much for a process; a single image is rejected.

        Raises:
            ShardFailed: if the shard can't be halved, or ends processes without its image too.
        """
        alone = self._run.rows(shard).num_rows == 1
        if WORKS[self._run.plan.kind].whole or (alone and 0 in self._condemned.get(shard, {})):
            raise ShardFailed(
                "A shard ends every process that computes it",
                where=f"{self._run.id}, shard {shard}",
                got=reason.value,
                remedy="give the machine more memory, or run fewer processes (execution.workers)",
            )
        if alone:
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
        ours = as_ours(error, f"{self._run.id}, shard {shard}")
        # An error of ours is no accident: it would come again.
        if self._errors[shard] >= _ERRORS_BEFORE_FAILURE or not isinstance(ours, ShardFailed):
            raise ours from error
        self._queue.append(shard)
