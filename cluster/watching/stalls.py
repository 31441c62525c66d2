"""Shards that stand still: found, named with their stage, and given up where the job says so.

A process whose shard has grown old tells where it is, now and then, on a thread that does nothing
else; so watching costs nothing as long as all goes well, and the shard itself stays on the main
thread (on another one cleaning took 2 % more processor time, for its memory comes from elsewhere).
Where code holds Python's lock the process falls silent, and that is told instead of the stage.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.progress import duration
from cluster.watching.logs import log_fields
from workers.stages import Stage, Stages, Whereabouts

SILENT = "none told"
"""The stage of a process that tells nothing."""
_BETWEEN = "between stages"
_EVERY_S = 30.0
_SILENCES = 3
"""Times that a process may miss its turn before it counts as silent."""


@dataclass(frozen=True)
class Limits:
    """How long a shard may stand still, in seconds."""

    warn_s: float
    kill_s: float | None = None
    """After this its process counts as dead; none to warn only."""

    @property
    def every_s(self) -> float:
        """Seconds between words of a process, and between looks of the driver."""
        return min(_EVERY_S, self.warn_s / 4)


@dataclass(frozen=True)
class Word:
    """What a process says of its shard."""

    number: int
    """Another one than that of the word before."""
    where: Whereabouts


@dataclass
class Assignment:
    """A shard in flight."""

    actor: Any
    """The process that computes it."""
    shard: str
    node: str
    started_s: float
    """When it was handed out, on the driver's clock."""
    moved_s: float = float("-inf")
    """When it was last known to move; at its start before there is word of it."""
    heard_s: float | None = None
    """When there was word of it last, or first could have been."""
    number: int = 0
    stage: str = ""
    """Where it stands still; empty as long as it moves."""
    is_given_up: bool = False


@dataclass
class StallWatch:
    """Looks at the shards of a run now and then; on the driver."""

    limits: Limits
    hear: Callable[[str], Word | None]
    """The last word about a shard."""
    warn: Callable[[str], object]
    """Told of a shard that stands still."""
    clock: Callable[[], float] = time.monotonic
    _looked_s: float = field(default=float("-inf"), init=False)

    def look(self, working: Sequence[Assignment]) -> list[Assignment]:
        """Find what stands still; returns the assignments that were newly found to.

        Those that stood still for too long are marked as given up: their processes are to be ended.
        """
        now_s = self.clock()
        if now_s - self._looked_s < self.limits.every_s:
            return []
        self._looked_s = now_s
        old = [one for one in working if now_s - one.started_s >= self.limits.warn_s]
        return [one for one in old if self._judge(one, now_s)]

    def _judge(self, one: Assignment, now_s: float) -> bool:
        """Take the last word about a shard; says whether it stands still that did not before."""
        one.moved_s = max(one.moved_s, one.started_s)
        one.heard_s = now_s if one.heard_s is None else one.heard_s
        word = self.hear(one.shard)
        is_silent = word is None or word.number == one.number
        if word is not None and not is_silent:
            one.number, one.heard_s = word.number, now_s
            one.moved_s = max(one.moved_s, now_s - word.where.still_s)
        elif now_s - one.heard_s < _SILENCES * self.limits.every_s:
            return False
        still_s = now_s - one.moved_s
        if still_s < self.limits.warn_s:
            one.stage = ""
            return False
        is_new = not one.stage
        one.stage = SILENT if word is None or is_silent else str(word.where.stage or _BETWEEN)
        one.is_given_up = self.limits.kill_s is not None and still_s >= self.limits.kill_s
        if is_new or one.is_given_up:
            self._tell(one, still_s)
        return is_new

    def _tell(self, one: Assignment, still_s: float) -> None:
        silent = one.stage == SILENT
        where = "its process tells nothing" if silent else f"in the stage {one.stage}"
        told = f"shard {one.shard} has stood still for {duration(still_s)}, {where}"
        if one.is_given_up:
            told += "; its process is ended"
        fields = {"shard": one.shard, "stage": one.stage, "node": one.node}
        with log_fields({**fields, "still_s": round(still_s, 1)}):
            self.warn(told)


def says_nothing_of_images(stage: str) -> bool:
    """Whether a stall lies with a store or a network, so that no image is to blame."""
    return stage in (Stage.FETCH, Stage.WRITE)


class Reporter:
    """Says where a process is in its shard once that has grown old, on a thread of its own."""

    def __init__(self, limits: Limits, say: Callable[[str, Word], object]) -> None:
        """``say`` is told the shard and the word."""
        self._limits, self._say = limits, say
        self._current: tuple[str, float, Stages] | None = None
        threading.Thread(target=self._watch, name="reporter", daemon=True).start()

    def begin(self, shard: str, stages: Stages) -> None:
        """A shard is begun."""
        self._current = shard, time.monotonic(), stages

    def end(self) -> None:
        """The shard has ended."""
        self._current = None

    def _watch(self) -> None:
        while True:
            time.sleep(self._limits.every_s)
            current = self._current  # read once: the shard may end at any moment
            if current is None:
                continue
            shard, started_s, stages = current
            # A little early, so that there is word when the driver begins to listen.
            if time.monotonic() - started_s >= self._limits.warn_s - self._limits.every_s:
                self._say(shard, Word(time.time_ns(), stages.where()))
