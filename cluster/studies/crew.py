"""Processes that make a study's trials, one trial at a time each; what fails is set apart.

A trial is handed out when a process is free, so the driver holds no more than its list. A process
that dies is replaced and its trial tried once more: the lake keeps the epochs and shards it had
done. A trial that fails says why, and the others go on. How many are at work follows the cluster:
nodes may go and come, and one that can't open the lake is passed over.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from cluster.deaths import Deaths, Fate, fate_of
from cluster.ray_failures import as_ours
from cluster.studies.process import TrialEnd, TrialProcess, Unready, Workplace
from cluster.studies.watching import Watch
from schemas.errors import RaywardError, RunError
from schemas.studies import Trial

LOOK_S = 2.0
"""How often the driver looks at the cluster and at what processes note."""
_PATIENCE_S = 900.0
"""How long a study waits for room once it had some: a node that is lost may be replaced."""
_NODE_LABEL = "ray.io/node-id"

Ended = tuple[Trial, TrialEnd | RaywardError]


class Crew:
    """The processes of a study while they make trials of one world size."""

    def __init__(self, place: Workplace, at_once: int | None, watch: Watch) -> None:
        """``at_once`` is how many trials run side by side; as many as fit when not given."""
        self._place, self._at_once, self._watch = place, at_once, watch
        # A trial that trains in several processes only waits for them: they take the resources.
        together = place.world_size > 1
        self._resources = {"num_cpus": 0} if together else {"num_cpus": 1, "num_gpus": place.gpus}
        self._process: Any = ray.remote(TrialProcess)
        self._queue: deque[Trial] = deque()
        self._working: dict[ray.ObjectRef[TrialEnd | Unready], tuple[ActorHandle[Any], Trial]] = {}
        self._deaths = Deaths()
        self._shunned: set[str] = set()
        self._began = False
        self._cramped_s: float | None = None

    def run(self, trials: Sequence[Trial]) -> Iterator[Ended]:
        """Make trials; yields each as it ends, well or with the error that ended it.

        Raises:
            RaywardError: if not a single process fits the cluster, or none can start.
        """
        self._queue.extend(trials)
        if not self._slots():
            raise self._no_room()
        try:
            while self._queue or self._working:
                self._hire()
                for ready in self._wait():
                    yield from self._settle(ready)
                self._watch.look()
        finally:
            for actor, _ in self._working.values():
                ray.kill(actor)

    def _wait(self) -> Sequence[Any]:
        if not self._working:
            time.sleep(LOOK_S)
            return ()
        ready, _ = ray.wait(list(self._working), num_returns=1, timeout=LOOK_S)
        return ready

    def _settle(self, ready: "ray.ObjectRef[TrialEnd | Unready]") -> Iterator[Ended]:
        """Take what became of a trial."""
        actor, trial = self._working.pop(ready)
        try:
            end = ray.get(ready)
        except RayTaskError as error:
            self._began = True
            self._watch.forget(trial.text)
            if self._place.gpus:  # what broke on a GPU may have left it unusable to the process
                ray.kill(actor)
            else:
                self._hand_out(actor)
            yield trial, as_ours(error, trial.text, what="A trial failed")
            return
        except RayError as error:
            # It may be half dead: a successor must not find it writing.
            ray.kill(actor)
            failed = self._bury(trial, error)
            if failed:
                yield trial, failed
            return
        if isinstance(end, Unready):
            ray.kill(actor)
            failed = self._shun(trial, end)
            if failed:
                yield trial, failed
            return
        self._began = True
        self._watch.forget(trial.text)
        self._hand_out(actor)
        yield trial, end

    def _hire(self) -> None:
        """Start as many processes as there are trials for, and room.

        Raises:
            RunError: if there has been none for a long time.
        """
        slots = self._slots()
        for _ in range(min(slots - len(self._working), len(self._queue))):
            selector = self._elsewhere()
            options = self._process.options(max_restarts=0, **self._resources, **selector)
            self._give(options.remote(self._place))
        if self._working:
            self._cramped_s = None
        elif self._queue:
            now_s = time.monotonic()
            if self._cramped_s is None:
                self._cramped_s = now_s
                self._watch.say("no machine is left that a trial fits on; waiting for one")
            if now_s - self._cramped_s > _PATIENCE_S:
                raise self._no_room()

    def _hand_out(self, actor: "ActorHandle[Any]") -> None:
        """Give a process its next trial, or let it go."""
        if self._queue and len(self._working) < self._slots():
            self._give(actor)
        else:
            ray.kill(actor)

    def _give(self, actor: "ActorHandle[Any]") -> None:
        trial = self._queue.popleft()
        self._working[actor.run.remote(trial)] = actor, trial

    def _slots(self) -> int:
        """Trials that fit the cluster as it is now, or as many as the study asks for."""
        there = [one["Resources"] for one in self._nodes()]
        if self._place.world_size == 1:
            fitting = sum(self._fitting(one) for one in there)
        else:
            names = {name for one in there for name in one}
            fitting = self._fitting(
                {name: sum(one.get(name, 0) for one in there) for name in names}
            )
        return min(fitting, self._at_once or fitting)

    def _fitting(self, resources: Mapping[str, float]) -> int:
        size, gpus = self._place.world_size, self._place.gpus
        cpus = int(resources.get("CPU", 0))
        # Workers of one training share what a small machine has, so one trial fits any.
        fitting = cpus if size == 1 else max(cpus // size, min(cpus, 1))
        if not gpus:
            return fitting
        # A third of a GPU fits three times, whatever floating point says.
        return min(fitting, int(resources.get("GPU", 0.0) / (gpus * size) + 1e-6))

    def _nodes(self) -> list[Mapping[str, Any]]:
        """The nodes that are there, but for those that are passed over."""
        return [one for one in ray.nodes() if one["Alive"] and one["NodeID"] not in self._shunned]

    def _elsewhere(self) -> dict[str, Any]:
        """What keeps a new process off nodes that are passed over."""
        if not self._shunned:
            return {}
        return {"label_selector": {_NODE_LABEL: f"!in({','.join(sorted(self._shunned))})"}}

    def _no_room(self) -> RunError:
        there = ray.cluster_resources()
        return RunError(
            "No trial fits the cluster",
            where=self._place.study,
            got=f"{int(there.get('CPU', 0))} CPUs and {there.get('GPU', 0.0):g} GPUs",
            remedy="lower gpus_per_trial, or run it where there are GPUs",
        )

    def _shun(self, trial: Trial, end: Unready) -> RaywardError | None:
        """A machine can't open the lake; its trial goes to another, as long as there is one."""
        self._watch.say(f"a machine is passed over: {end.cause}")
        self._shunned.add(end.node)
        if self._nodes():
            self._queue.appendleft(trial)
            return None
        self._shunned.clear()  # perhaps the store was away for a moment
        return self._not_started(trial, end.cause)

    def _bury(self, trial: Trial, error: RayError) -> RaywardError | None:
        """A process died; its trial is tried again, unless that is what killed it before."""
        fate = fate_of(error)
        if fate is Fate.START:
            what = "No process could start"
            return self._not_started(trial, as_ours(error, self._place.study, what))
        self._began = True
        if self._may_retry(trial, fate):
            return None
        return RunError(
            "Every process that made this trial ended before it was done",
            where=trial.text,
            got=self._deaths.told(trial.name),
            remedy="give the machine more memory, run fewer trials at once (trials_at_once), or "
            "smaller batches",
        )

    def _not_started(self, trial: Trial, cause: RaywardError) -> RaywardError | None:
        """A trial was not begun; it is tried again a few times.

        Raises:
            RaywardError: if no process has ever begun to work: no trial would fare better.
        """
        if self._may_retry(trial, Fate.START):
            return None
        if not self._began:
            raise cause
        return cause

    def _may_retry(self, trial: Trial, fate: Fate) -> bool:
        """Count an end, and queue the trial again if it has tries left."""
        again = self._deaths.note(trial.name, fate)
        if again:
            self._queue.appendleft(trial)
        else:
            self._watch.forget(trial.text)
        return again
