"""Shards that stand still: found, named with their stage, and given up where the job says so.

A process is asked where it is only once its shard is older than a stall may be, so watching costs
nothing as long as all goes well. It answers on a thread of its own; where code holds Python's lock
and it can't, that is told instead of the stage.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.progress import duration
from cluster.watching.logs import log_fields
from workers.stages import Stage, Whereabouts

ASIDE = "watch"
"""The concurrency group in which a process answers while it computes."""
SILENT = "none told"
"""The stage of a process that does not answer."""
_ANSWER_S = 5.0
"""How long the driver waits for answers; the shards that end meanwhile wait as well."""
_ASK_EVERY_S = 30.0


@dataclass
class Assignment:
    """A shard in flight."""

    actor: Any
    """The process that computes it."""
    shard: str
    node: str
    started_s: float
    """When it was handed out, on the driver's clock."""
    moved_s: float = 0.0
    """When it was last known to move."""
    stage: str = ""
    """Where it stands still; empty as long as it moves."""
    is_given_up: bool = False


@dataclass(frozen=True)
class Limits:
    """How long a shard may stand still, in seconds."""

    warn_s: float
    kill_s: float | None
    """After this its process counts as dead; none to warn only."""


@dataclass
class StallWatch:
    """Looks at the shards of a run now and then."""

    limits: Limits
    warn: Callable[[str], object]
    """Told of a shard that stands still."""
    clock: Callable[[], float] = time.monotonic
    _asked_s: float = field(default=float("-inf"), init=False)

    def look(self, working: Sequence[Assignment]) -> list[Assignment]:
        """Find what stands still; returns the assignments that were newly found to.

        Those that stood still for too long are marked as given up: their processes are to be ended.
        """
        now_s = self.clock()
        for one in working:
            one.moved_s = max(one.moved_s, one.started_s)
        old = [one for one in working if now_s - one.moved_s >= self.limits.warn_s]
        if not old or now_s - self._asked_s < min(_ASK_EVERY_S, self.limits.warn_s / 2):
            return []
        self._asked_s = now_s
        answers = _ask(old)
        return [one for place, one in enumerate(old) if self._judge(one, answers.get(place))]

    def _judge(self, one: Assignment, answer: Whereabouts | None) -> bool:
        """Take an answer; says whether the shard was moving as far as was known, and is not."""
        now_s = self.clock()
        if answer is not None:
            one.moved_s = max(one.moved_s, now_s - answer.still_s)
        still_s = now_s - one.moved_s
        if still_s < self.limits.warn_s:
            one.stage = ""
            return False
        is_new = not one.stage
        one.stage = SILENT if answer is None else str(answer.stage or "between stages")
        one.is_given_up = self.limits.kill_s is not None and still_s >= self.limits.kill_s
        if is_new or one.is_given_up:
            self._tell(one, still_s)
        return is_new

    def _tell(self, one: Assignment, still_s: float) -> None:
        where = (
            "its process does not answer" if one.stage == SILENT else f"in the stage {one.stage}"
        )
        told = f"shard {one.shard} has stood still for {duration(still_s)}, {where}"
        if one.is_given_up:
            told += "; its process is ended"
        fields = {"shard": one.shard, "stage": one.stage, "node": one.node}
        with log_fields({**fields, "still_s": round(still_s, 1)}):
            self.warn(told)


def says_nothing_of_images(stage: str) -> bool:
    """Whether a stall lies with a store or a network, so that no image is to blame."""
    return stage in (Stage.FETCH, Stage.WRITE)


def _ask(working: Sequence[Assignment]) -> Mapping[int, Whereabouts]:
    """Where processes are, by their place in ``working``; without those that don't answer."""
    asked = {
        one.actor.where.options(concurrency_group=ASIDE).remote(): place
        for place, one in enumerate(working)
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    answers: dict[int, Whereabouts] = {}
    for ref in ready:
        try:
            answers[asked[ref]] = ray.get(ref)
        except RayError:  # it is dead, and whoever waits for its shard will know
            continue
    return answers
