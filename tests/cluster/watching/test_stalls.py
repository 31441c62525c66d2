"""What counts as a stall, when it is told, and when a process is given up."""

import threading
from dataclasses import dataclass, field

import pytest
from pydantic import ValidationError

from cluster.watching.stalls import (
    SILENT,
    Assignment,
    Limits,
    Reporter,
    StallWatch,
    Word,
    says_nothing_of_images,
)
from schemas.specs.base import Execution
from workers.stages import Stage, Stages, Whereabouts

LIMITS = Limits(100.0, 250.0)
"""A stall is told after 100 s; there is word, and a look, every 25 s."""


@dataclass
class World:
    """A watch over one shard that began at 0."""

    limits: Limits = LIMITS
    one: Assignment = field(default_factory=lambda: Assignment(None, "00007", "node", 0.0))
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    word: Word | None = None
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.watch = StallWatch(self.limits, self.hear, self.said.append, lambda: self.now_s)

    def hear(self, shard: str) -> Word | None:
        self.asked.append(shard)
        return self.word

    def look(self, now_s: float, stage: Stage | None = None, still_s: float = 0.0) -> bool:
        """Look, with a new word if there is a ``stage``."""
        self.now_s = now_s
        if stage:
            self.word = Word(int(now_s), Whereabouts(stage, still_s))
        return bool(self.watch.look([self.one]))


def test_a_young_shard_costs_no_question() -> None:
    world = World()
    assert not world.look(99.0)
    assert world.asked == []


def test_looks_are_rare() -> None:
    world = World()
    world.look(500.0, Stage.DECODE, 2.0)
    world.look(510.0, Stage.DECODE, 2.0)
    assert world.asked == ["00007"]


def test_a_shard_that_moves_is_left_alone() -> None:
    world = World()
    for now_s in range(110, 1000, 30):
        assert not world.look(float(now_s), Stage.DECODE, 2.0)
    assert (world.said, world.one.stage) == ([], "")


def test_a_stall_is_told_once_with_its_stage_and_ends_when_it_moves() -> None:
    world = World()
    assert world.look(130.0, Stage.DECODE, 110.0)
    assert world.said == ["shard 00007 has stood still for 1 min 50 s, in the stage decode"]
    assert not world.look(170.0, Stage.DECODE, 150.0)
    assert len(world.said) == 1
    assert not world.look(210.0, Stage.COMPUTE, 1.0)
    assert world.one.stage == ""
    assert world.look(400.0, Stage.NETWORK, 105.0), "a new stall"


def test_a_process_is_given_up_after_the_second_limit() -> None:
    world = World()
    assert world.look(130.0, Stage.FETCH, 110.0)
    assert not world.one.is_given_up
    world.look(280.0, Stage.FETCH, 260.0)
    assert world.one.is_given_up
    assert world.said[-1].endswith("in the stage fetch; its process is ended")


def test_without_a_second_limit_nobody_is_given_up() -> None:
    world = World(Limits(100.0))
    world.look(1e6, Stage.FETCH, 1e6)
    assert world.one.stage == "fetch"
    assert not world.one.is_given_up


def test_a_silent_process_is_given_its_turn_before_it_counts_as_silent() -> None:
    world = World()
    assert not world.look(110.0), "its first word may be on the way"
    assert not world.look(180.0)
    assert world.look(185.0) is False, "no look so soon"
    assert world.look(206.0)
    assert world.one.stage == SILENT
    assert world.said == ["shard 00007 has stood still for 3 min 26 s, its process tells nothing"]
    world.look(251.0)
    assert world.one.is_given_up


def test_an_old_word_is_no_word() -> None:
    world = World()
    assert not world.look(150.0, Stage.DECODE, 50.0)  # it moved at 100
    assert not world.look(224.0)
    assert world.look(250.0)
    assert world.one.stage == SILENT
    assert world.said == ["shard 00007 has stood still for 2 min 30 s, its process tells nothing"]


def test_a_process_speaks_once_its_shard_is_old() -> None:
    said: list[tuple[str, Word]] = []
    enough = threading.Event()

    def say(shard: str, word: Word) -> None:
        said.append((shard, word))
        if len(said) > 1:
            enough.set()

    reporter, stages = Reporter(Limits(0.2), say), Stages()
    reporter.begin("00003", stages)
    with stages.during(Stage.WRITE):
        assert enough.wait(30)
    reporter.end()
    (shard, first), (_, second) = said[:2]
    assert shard == "00003" and first.number != second.number
    assert first.where.stage is Stage.WRITE
    assert second.where.still_s > first.where.still_s >= 0.1


class Hasty(Reporter):
    """Its shard is old at once, and ends as soon as its thread has looked at it."""

    _left: tuple[str, float, Stages] | None = None

    @property
    def _current(self) -> tuple[str, float, Stages] | None:
        found, self._left = self._left, None
        return found

    @_current.setter
    def _current(self, value: tuple[str, float, Stages] | None) -> None:
        self._left = value and (value[0], value[1] - 60.0, value[2])


def test_a_shard_that_ends_while_it_is_looked_at_ends_no_thread() -> None:
    said: list[str] = []
    heard = threading.Event()

    def say(shard: str, word: Word) -> None:
        said.append(shard)
        heard.set()

    reporter = Hasty(Limits(0.04), say)
    for shard in ("00001", "00002"):
        heard.clear()
        reporter.begin(shard, Stages())
        assert heard.wait(10), "its thread has died"
    reporter.end()
    assert said == ["00001", "00002"]


def test_stores_are_told_from_images() -> None:
    assert [stage for stage in Stage if says_nothing_of_images(stage)] == [
        Stage.FETCH,
        Stage.WRITE,
    ]
    assert not says_nothing_of_images(SILENT)


def test_limits_in_the_wrong_order_are_refused() -> None:
    assert Execution(stall_kill_minutes=10).stall_minutes == 10
    with pytest.raises(ValidationError, match="must not be below stall_minutes"):
        Execution(stall_minutes=5, stall_kill_minutes=4)
