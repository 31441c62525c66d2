"""The processes of one run: as many as fit the cluster as it stands, each handed out once it runs.

Nodes may go and come while a run is at work, so room is looked for every few seconds. A process is
given its first shard only when it has started: one that waits for a node holds up nothing, and its
waiting is what makes an autoscaler add that node.
"""

import time
from math import ceil
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.deaths import Deaths, Fate, fate_of
from cluster.lake.runs import LakeRun
from cluster.ray_failures import as_ours
from cluster.shards import ShardProcess
from cluster.slots import Growth, fitting, growth
from cluster.watching.stalls import Limits
from schemas.errors import RunError
from schemas.specs.base import Execution

LOOK_S = 2.0
"""How often the driver looks at the cluster."""
_SHARDS_A_PROCESS = 3
"""A process that computes fewer takes longer to start than it saves; a night's few go to one."""
_PATIENCE_S = 1800.0
"""How long a run waits for room: a node that is lost may be replaced, one asked for may come."""
_START = "start"
"""What the ends of processes are counted under that had no shard yet."""

Worker = tuple[Any, str]
"""A process, and the node it runs on."""


class ShardCrew:
    """Starts processes, and lets them go."""

    def __init__(self, run: LakeRun, lake: str, execution: Execution, limits: Limits) -> None:
        """``limits`` say when a shard stands still."""
        plan = run.plan
        self._run_id, self._job, self._execution = run.id, plan.name, execution
        self._limits = limits
        gpus = execution.gpus_per_worker
        self._arguments = (lake, run.id, plan.kind, dict(plan.params), gpus)
        process: Any = ray.remote(ShardProcess)
        self._process = process.options(max_restarts=0, num_cpus=1, num_gpus=gpus)
        self.starting: dict[ray.ObjectRef[str], Any] = {}
        """Processes that have not started, by their answer once they have."""
        self._deaths = Deaths()
        self._most, self._growth = 0, Growth(0)
        self._slots, self._looked_s = 0, float("-inf")
        self._idle_since_s: float | None = None

    def begin(self, shards: int) -> None:
        """Look at the cluster for a run of so many shards.

        Raises:
            RunError: if not a single process fits, nor might.
        """
        self._most = self._worthwhile(shards)
        self._growth = growth(self._execution.gpus_per_worker)
        self._count_slots()
        if not self._slots:
            raise self._no_room()

    def hire(self, waiting: int, working: int) -> None:
        """Start as many processes as there are shards waiting, and room.

        Raises:
            RunError: if nothing could work for a long time.
        """
        if time.monotonic() - self._looked_s >= LOOK_S:
            self._count_slots()
        if not waiting:  # whoever has not started now would have nothing to do
            self.dismiss([])
        wanted = min(self._slots - working, waiting)
        for _ in range(wanted - len(self.starting)):
            actor = self._process.remote(*self._arguments)
            self.starting[actor.ready.remote(self._job, self._limits)] = actor
        self._check_patience(is_at_work=working > 0)

    def started(self, ready: "ray.ObjectRef[str]") -> Worker | None:
        """A process that has answered; none if it ended before.

        Raises:
            RaywardError: if no process can start.
        """
        actor = self.starting.pop(ready)
        try:
            node = ray.get(ready)
        except RayError as error:
            ray.kill(actor)
            fate = fate_of(error)
            if fate is Fate.START or not self._deaths.note(_START, fate):
                what = "A process ended before it had begun"
                raise as_ours(error, f"{self._run_id}, {self._job}", what) from error
            return None
        self._deaths.forget(_START)
        return actor, node

    def dismiss(self, working: list[Any]) -> None:
        """End the processes that have not started, and those given."""
        for actor in (*self.starting.values(), *working):
            ray.kill(actor)
        self.starting.clear()

    def _count_slots(self) -> None:
        """Find how many processes there is room for, or are to be asked for."""
        self._looked_s = time.monotonic()
        there = fitting(self._execution.gpus_per_worker)
        # Where nobody says how many, one that waits asks for a first node.
        unasked = max(there, self._growth.most if self._growth.is_stated else 1)
        wanted = self._execution.workers or unasked
        self._slots = min(wanted, max(there, self._growth.most), self._most)

    def _worthwhile(self, shards: int) -> int:
        """Processes that a number of shards is worth, unless the job says how many."""
        if self._execution.workers or self._execution.gpus_per_worker:
            return shards
        return ceil(shards / _SHARDS_A_PROCESS)

    def _check_patience(self, *, is_at_work: bool) -> None:
        now_s = time.monotonic()
        if is_at_work:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s > _PATIENCE_S:
            raise self._no_room()

    def _no_room(self) -> RunError:
        there = ray.cluster_resources()
        return RunError(
            "No process fits the cluster",
            where=self._job,
            got=f"{int(there.get('CPU', 0))} CPUs and {there.get('GPU', 0):g} GPUs",
            remedy="lower execution.gpus_per_worker, or run it where there are GPUs",
        )
