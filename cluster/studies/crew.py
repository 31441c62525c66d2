"""Processes that make a study's trials, one trial at a time each; what fails is set apart.

A trial is handed out when a process is free, so the driver holds no more than its list. A process
that dies is replaced and its trial tried once more: the lake keeps the epochs and shards it had
done. A trial that fails says why, and the others go on.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from cluster.ray_failures import as_ours, failed_to_start, is_lost_node
from cluster.studies.process import TrialEnd, TrialProcess
from schemas.errors import RaywardError, RunError
from schemas.studies import Trial

_DEATHS = 2
_LOSSES = 10
"""Times a trial may lose its node: a spot node now and then is no reason to give up."""


@dataclass(frozen=True)
class Places:
    """What a study says about where its trials run."""

    at_once: int | None = None
    """Trials side by side; as many as fit when not given."""
    gpus: float = 0.0
    """GPUs of one trial."""


class Crew:
    """The processes of a study while they make trials of one world size."""

    def __init__(self, lake: str, study: str, places: Places, world_size: int) -> None:
        together = world_size > 1
        self._study, self._places, self._world_size = study, places, world_size
        # A trial that trains in several processes only waits for them: they take the resources.
        resources = {"num_cpus": 0} if together else {"num_cpus": 1, "num_gpus": places.gpus}
        process: Any = ray.remote(TrialProcess)
        self._process = process.options(max_restarts=0, **resources)
        self._arguments = {"lake": lake, "study": study, "together": together}
        self._queue: deque[Trial] = deque()
        self._working: dict[ray.ObjectRef[TrialEnd], tuple[ActorHandle[Any], Trial]] = {}
        self._deaths: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()

    def run(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, TrialEnd | RaywardError]]:
        """Make trials; yields each as it ends, well or with the error that ended it.

        Raises:
            RunError: if not a single process fits the cluster.
        """
        self._queue.extend(trials)
        for _ in range(min(self._slots(), len(trials))):
            self._hire()
        while self._working:
            (ready,), _ = ray.wait(list(self._working), num_returns=1)
            actor, trial = self._working.pop(ready)
            try:
                yield trial, ray.get(ready)
            except RayActorError as error:
                ended = self._bury(trial, error)
                if ended:
                    yield trial, ended
                self._hire()
            except RayTaskError as error:
                yield trial, as_ours(error, trial.text, what="A trial failed")
                self._hand_out(actor)
            else:
                self._hand_out(actor)

    def _slots(self) -> int:
        """Trials that fit the cluster side by side, or as many as the study asks for."""
        there = ray.cluster_resources()
        cpus, gpus = int(there.get("CPU", 0)), there.get("GPU", 0.0)
        # Workers of one training share what a small machine has, so one trial fits any.
        fitting = cpus if self._world_size == 1 else max(cpus // self._world_size, 1)
        if self._places.gpus:
            fitting = min(fitting, int(gpus / (self._places.gpus * self._world_size)))
        if fitting < 1:
            raise RunError(
                "No trial fits the cluster",
                where=self._study,
                got=f"{cpus} CPUs and {gpus:g} GPUs",
                remedy="lower gpus_per_trial, or run it where there are GPUs",
            )
        return min(fitting, self._places.at_once or fitting)

    def _hire(self) -> None:
        """Start a process, if there is a trial for it."""
        if self._queue:
            self._hand_out(self._process.remote(**self._arguments))

    def _hand_out(self, actor: "ActorHandle[Any]") -> None:
        """Give a process its next trial, or let it go."""
        if not self._queue:
            ray.kill(actor)
            return
        trial = self._queue.popleft()
        self._working[actor.run.remote(trial)] = actor, trial

    def _bury(self, trial: Trial, error: RayActorError) -> RaywardError | None:
        """A process died; its trial is tried again, unless that is what killed it before."""
        if failed_to_start(error):
            raise as_ours(error, self._study, what="No process could start") from error
        lost = is_lost_node(error)
        count, most = (self._losses, _LOSSES) if lost else (self._deaths, _DEATHS)
        count[trial.name] += 1
        if count[trial.name] < most:
            self._queue.appendleft(trial)
            return None
        return RunError(
            "Every process that made this trial ended before it was done",
            where=trial.text,
            got=f"{count[trial.name]} {'lost nodes' if lost else 'deaths'}",
            remedy="give the machine more memory, run fewer trials at once (trials_at_once), or "
            "smaller batches",
        )
