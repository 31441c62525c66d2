"""The shards of one run on Ray: one actor a slot, one shard at a time each, deaths survived.

Handing an actor a single shard tells which shard it died on. A shard that ends two processes is
probed image by image in processes of its own, and the killer is rejected. A shard that is too much
for a process's memory is halved, down to a single image that is rejected. A lost node says nothing
about its images and costs a retry only.
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from cluster.deaths import Deaths, Fate, fate_of
from cluster.lake.runs import LakeRun
from cluster.progress import Progress
from cluster.ray_failures import as_ours
from cluster.shard_crew import LOOK_S, ShardCrew
from cluster.shards import ProbeProcess, ShardOutcome, ShardTask, encode_rows
from cluster.watching.metrics import RunMetrics, Standing
from cluster.watching.stalls import Assignment, Limits, StallWatch, says_nothing_of_images
from cluster.watching.words import forget, hear
from cluster.works import WORKS
from schemas.errors import ShardFailed
from schemas.reasons import RejectReason
from schemas.specs.base import Execution

_ERRORS_BEFORE_FAILURE = 2


class ShardRun:
    """The shards of one run while they are computed."""

    def __init__(self, lake: str, run: LakeRun, execution: Execution, progress: Progress) -> None:
        self._run, self._execution, self._progress = run, execution, progress
        plan = run.plan
        self._probe: Any = ray.remote(ProbeProcess).options(
            max_restarts=0, num_cpus=1, num_gpus=execution.gpus_per_worker
        )
        self._probe_arguments = (lake, plan.kind, dict(plan.params))
        self._queue: deque[str] = deque()
        self._working: dict[ray.ObjectRef[ShardOutcome], Assignment] = {}
        self._deaths = Deaths()
        self._errors: Counter[str] = Counter()
        self._condemned: dict[str, dict[int, RejectReason]] = {}
        self._kill_s = execution.stall_kill_minutes and 60 * execution.stall_kill_minutes
        limits = Limits(60 * execution.stall_minutes, self._kill_s)
        warn = partial(progress.note, level="warning")
        self._stalls = StallWatch(limits, partial(hear, run.id), warn)
        self._crew = ShardCrew(run, lake, execution, limits)
        labels = (plan.kind, plan.name, run.id)
        self._metrics = RunMetrics(labels, has_gpu=execution.gpus_per_worker > 0)
        self._looked_s = float("-inf")

    def compute(self, pending: list[str]) -> None:
        """Compute shards until none is left.

        Raises:
            RunError: if not a single process fits the cluster, for a long time or at all.
            ShardFailed: if a shard fails for a reason no single image explains.
        """
        self._queue.extend(pending)
        self._crew.begin(len(pending))
        try:
            while self._queue or self._working:
                self._crew.hire(len(self._queue), len(self._working))
                for ready in self._wait():
                    if ready in self._working:
                        self._settle(ready)
                    elif worker := self._crew.started(ready):
                        self._hand_out(*worker)
                self._look()
        finally:
            self._crew.dismiss([one.actor for one in self._working.values()])
            self._metrics.show(Standing((), 0, len(self._queue), 0))
            forget(self._run.id)

    def _wait(self) -> Sequence[Any]:
        # First those that start: among many that work, one is always ready.
        awaited = [*self._crew.starting, *self._working]
        if not awaited:  # no node is left; one may come
            time.sleep(LOOK_S)
            return ()
        ready, _ = ray.wait(awaited, num_returns=1, timeout=LOOK_S)
        return ready

    def _settle(self, ready: "ray.ObjectRef[ShardOutcome]") -> None:
        """Take what became of a shard."""
        one = self._working.pop(ready)
        try:
            outcome = ray.get(ready)
        except RayTaskError as error:
            self._note_error(one.shard, error)
            self._hand_out(one.actor, one.node)
        except RayError as error:
            ray.kill(one.actor)  # it may be half dead, and must not hold the place of a new one
            self._bury(one, error)
        else:
            self._progress.advance(outcome.done + outcome.gone, outcome.rejected)
            self._metrics.shard_ended(outcome.done, outcome.figures)
            self._hand_out(one.actor, one.node)

    def _hand_out(self, actor: Any, node: str) -> None:
        """Give a process its next shard, or let it go."""
        if not self._queue:
            ray.kill(actor)
            return
        shard = self._queue.popleft()
        task = ShardTask(shard, encode_rows(self._run.rows(shard)), self._condemned.get(shard, {}))
        self._working[actor.run.remote(task)] = Assignment(actor, shard, node, time.monotonic())

    def _look(self) -> None:
        """See now and then how the run stands, and what stands still."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        working = list(self._working.values())
        for one in self._stalls.look(working):
            self._metrics.stalled(one.stage)
        for one in working:
            if one.is_given_up:
                ray.kill(one.actor)  # the shard comes back as that of a dead process
        left, stalled = len(self._queue) + len(working), sum(bool(one.stage) for one in working)
        ages_s = [now_s - one.started_s for one in working]
        self._metrics.show(Standing(ages_s, len(self._crew.starting), left, stalled))

    def _bury(self, one: Assignment, error: RayError) -> None:
        """A process died while it computed a shard; decide what that says about the shard."""
        shard, fate = one.shard, fate_of(error)
        if one.is_given_up and says_nothing_of_images(one.stage):
            fate = Fate.NODE
        self._metrics.died("stall" if one.is_given_up else fate.name.lower())
        if fate is Fate.MEMORY:
            self._make_smaller(shard, RejectReason.OUT_OF_MEMORY)
        elif fate is Fate.START:
            raise as_ours(error, self._run.id) from error
        elif self._deaths.note(shard, fate):
            self._queue.appendleft(shard)
        elif fate is Fate.NODE:
            raise as_ours(error, f"{self._run.id}, shard {shard}") from error
        else:
            self._deaths.forget(shard)
            self._condemn(shard)

    def _condemn(self, shard: str) -> None:
        """A shard ended its processes: keep them from the image that did, or halve it."""
        killers = self._find_killers(shard)
        if killers:
            self._condemned.setdefault(shard, {}).update(
                dict.fromkeys(killers, RejectReason.CRASHED_WORKER)
            )
            self._queue.appendleft(shard)
        else:
            self._make_smaller(shard, RejectReason.CRASHED_WORKER)

    def _find_killers(self, shard: str) -> list[int]:
        """Rows of a shard whose image ends the process that decodes it, or never lets it go on."""
        rows, killers = self._run.rows(shard), []
        spared = self._condemned.get(shard, {})
        probe: Any = None
        todo = deque(row for row in range(rows.num_rows) if row not in spared)
        while todo:
            try:
                if probe is None:
                    probe = self._probe.remote(*self._probe_arguments)
                    ray.get(probe.ready.remote())  # loading counts towards no image's time
                row = encode_rows(rows.slice(todo[0], 1))
                ray.get(probe.try_one.remote(row), timeout=self._kill_s)
            except RayTaskError:
                pass  # an exception is no crash; the shard itself will say more
            except RayError as error:
                ray.kill(probe)
                probe = None
                hangs = isinstance(error, GetTimeoutError)
                fate = Fate.PROCESS if hangs else fate_of(error)
                if fate is Fate.START:
                    raise as_ours(error, f"{self._run.id}, probe") from error
                if fate is Fate.NODE:
                    continue
                if fate is Fate.PROCESS:  # one too large is tried with the shard's half
                    killers.append(todo[0])
            todo.popleft()
        if probe is not None:
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
