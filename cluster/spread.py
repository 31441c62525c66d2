"""Parts of one computation in processes of a Ray cluster, with this process lending a hand."""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, Generic, TypeVar

import ray
from ray import ObjectRef

from cluster.ray_failures import as_ours
from schemas.errors import RaywardError
from workers.spreading import here

Shared = TypeVar("Shared")
Part = TypeVar("Part")
Result = TypeVar("Result")

_FIRST_PATIENCE_S = 5.0
"""How long a part may keep this process waiting before it has computed one to compare with."""


class OnRay:
    """Implements `workers.spreading.Spread` with tasks of one CPU each.

    The process that asks may hold the very CPU that a task waits for: a finishing step is a task,
    and a split runs in an actor. So it computes parts as well, and waits for a task only when
    nothing else is left to do, and no longer than a part takes: then it does that part too. Where
    no CPU is free this costs a little time; it cannot stand still.
    """

    def __init__(self, where: str) -> None:
        self._where = where

    def __call__(
        self,
        function: Callable[[Shared, Part], Result],
        shared: Shared,
        parts: Sequence[Part],
    ) -> Generator[Result]:
        """Yield ``function(shared, part)`` for each part, in order.

        Raises:
            ShardFailed: if a part fails, wherever it was computed, or its process dies again and
                again. Errors of ours come as they are.
        """
        cpus = int(ray.cluster_resources().get("CPU", 0)) if ray.is_initialized() else 1
        helpers = min(cpus, len(parts)) - 1
        if helpers < 1:
            return self._watched(here(function, shared, parts))
        return self._watched(_Crew(function, shared, parts, helpers).results())

    def _watched(self, results: Generator[Result]) -> Generator[Result]:
        try:
            with closing(results):
                yield from results
        except RaywardError:
            raise
        except Exception as error:
            raise as_ours(error, self._where) from error


class _Crew(Generic[Shared, Part, Result]):
    """This process and its helpers while they compute the parts."""

    def __init__(
        self,
        function: Callable[[Shared, Part], Result],
        shared: Shared,
        parts: Sequence[Part],
        helpers: int,
    ) -> None:
        self._function, self._shared, self._parts = function, shared, parts
        self._helpers = helpers
        self._task: Any = ray.remote(num_cpus=1)(_compute)
        self._stored = ray.put(shared)
        self._todo = deque(range(len(parts)))
        self._out: dict[int, ObjectRef[Result]] = {}
        self._given_up: list[ObjectRef[Result]] = []
        """Handed out and then done here: each still holds a process until it ends.

        They aren't cancelled: in Ray 2.60 a task that is cancelled in the moment it ends brings
        down the process that asked ("Tried to complete task that was not pending"). At most two
        for each helper are computed in vain.
        """
        self._done: dict[int, Result] = {}
        self._slowest_s = 0.0
        self._alone = False
        """The last wait was in vain and no result has come since: no use in waiting again."""

    def results(self) -> Generator[Result]:
        """Yield the results in order."""
        for turn in range(len(self._parts)):
            while turn not in self._done:
                self._step(turn)
            yield self._done.pop(turn)

    def _step(self, turn: int) -> None:
        """Bring the part whose turn it is a step nearer; results ahead of it are few."""
        self._hand_out(turn)
        if self._collect(timeout_s=0):
            return
        if self._may_begin(turn):
            self._do(self._todo.popleft())
        elif len(self._out) > self._helpers and turn < max(self._out):
            self._take_back(max(self._out))  # the newest still waits for a process
        elif self._alone or not self._collect(self._slowest_s or _FIRST_PATIENCE_S):
            self._alone = True
            self._take_back(turn)

    def _may_begin(self, turn: int) -> bool:
        return bool(self._todo) and self._todo[0] < turn + 4 * self._helpers

    def _hand_out(self, turn: int) -> None:
        self._forget_ended()
        places = 2 * self._helpers - len(self._given_up)
        while len(self._out) < places and self._may_begin(turn):
            number = self._todo.popleft()
            self._out[number] = self._task.remote(self._function, self._stored, self._parts[number])

    def _collect(self, timeout_s: float) -> bool:
        """Fetch the results that are there; wait for the first one."""
        if not self._out:
            return False
        refs = list(self._out.values())
        came, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        for number in [number for number, ref in self._out.items() if ref in came]:
            self._done[number] = ray.get(self._out.pop(number))
            self._alone = False
        return bool(came)

    def _take_back(self, number: int) -> None:
        self._given_up.append(self._out.pop(number))
        self._do(number)

    def _forget_ended(self) -> None:
        if not self._given_up:
            return
        ended, running = ray.wait(self._given_up, num_returns=len(self._given_up), timeout=0)
        self._given_up = running
        if ended:
            self._alone = False  # a process was free for them

    def _do(self, number: int) -> None:
        started_s = time.monotonic()
        self._done[number] = self._function(self._shared, self._parts[number])
        self._slowest_s = max(self._slowest_s, time.monotonic() - started_s)


def _compute(function: Callable[[Shared, Part], Result], shared: Shared, part: Part) -> Result:
    return function(shared, part)
