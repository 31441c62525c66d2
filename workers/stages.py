"""The stages of a shard: which one a process is in, and how long each took.

Whoever computes a shard makes its `Stages` current; code below says what it is at with `during`,
which costs a microsecond, and nothing is told to anyone.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """What a process is at."""

    FETCH = "fetch"
    """Source bytes, or prepared pixels."""
    DECODE = "decode"
    """From bytes to pixels."""
    COMPUTE = "compute"
    """All that is done with pixels, but for passes of a network."""
    NETWORK = "network"
    """Passes of a network, copies to and from its device included."""
    WRITE = "write"
    """Files and the receipt."""


@dataclass(frozen=True)
class Whereabouts:
    """Where a process is in its work."""

    stage: Stage | None
    """The stage it entered last and is still in; none between two shards."""
    still_s: float
    """Seconds since it last entered or left a stage."""


class Stages:
    """Seconds by stage, each second of a thread counted once.

    A stage within another one takes its seconds from it. Threads count side by side, so the sum may
    exceed the time on the wall.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: defaultdict[Stage, float] = defaultdict(float)
        self._within = threading.local()
        self._open: dict[int, tuple[float, Stage]] = {}
        """By thread: the stage it is in, and when it entered it."""
        self._moved_s = clock()

    @contextmanager
    def during(self, stage: Stage) -> Iterator[None]:
        """Count what happens in the block as ``stage``."""
        thread, started_s = threading.get_ident(), self._clock()
        outer = self._open.get(thread)
        taken_s = getattr(self._within, "taken_s", 0.0)
        self._within.taken_s = 0.0
        self._open[thread] = started_s, stage
        self._moved_s = started_s
        try:
            yield
        finally:
            ended_s = self._clock()
            self._seconds[stage] += ended_s - started_s - self._within.taken_s
            self._within.taken_s = taken_s + ended_s - started_s
            self._moved_s = ended_s
            if outer is None:
                del self._open[thread]
            else:
                self._open[thread] = outer

    @contextmanager
    def current(self) -> Iterator[None]:
        """Let `during` count here as long as the block lasts."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    @property
    def seconds(self) -> Mapping[Stage, float]:
        """Seconds of the stages that were entered."""
        return dict(self._seconds)

    def where(self) -> Whereabouts:
        """Where the threads are; may be asked from another one."""
        entered = sorted(self._open.copy().values())
        return Whereabouts(entered[-1][1] if entered else None, self._clock() - self._moved_s)


_CURRENT: ContextVar[Stages | None] = ContextVar("stages", default=None)


def during(stage: Stage) -> AbstractContextManager[None]:
    """Count a block as ``stage`` of the shard that is computed here, if one is."""
    stages = _CURRENT.get()
    return nullcontext() if stages is None else stages.during(stage)
