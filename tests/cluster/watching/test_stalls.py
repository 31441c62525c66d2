"""What counts as a stall, when it is told, and when a process is given up; on a pretended Ray."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import ValidationError
from ray.exceptions import ActorDiedError

from cluster.watching import stalls
from cluster.watching.stalls import SILENT, Assignment, Limits, StallWatch, says_nothing_of_images
from schemas.specs.base import Execution
from workers.stages import Stage, Whereabouts


@dataclass
class Process:
    """Answers what it is told to: where it is, nothing at all, or with an error."""

    answer: Whereabouts | Exception | None
    asked: int = 0

    @property
    def where(self) -> "Process":
        return self

    def options(self, *, concurrency_group: str) -> "Process":
        assert concurrency_group == "watch"
        return self

    def remote(self) -> "tuple[int, Process]":
        self.asked += 1
        return id(self), self

    def __hash__(self) -> int:
        return id(self)


class PretendedRay:
    def wait(self, refs: list[Any], *, num_returns: int, timeout: float) -> tuple[Any, Any]:
        assert num_returns == len(refs)
        return [one for one in refs if one[1].answer is not None], []

    def get(self, ref: tuple[int, Process]) -> Whereabouts:
        answer = ref[1].answer
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer


@dataclass
class World:
    """A watch over one shard that began at 0; a stall is told after 100 s."""

    watch: StallWatch
    one: Assignment
    process: Process
    said: list[str] = field(default_factory=list)
    now_s: float = 0.0

    def look(self, now_s: float, answer: Whereabouts | Exception | None = None) -> bool:
        self.now_s, self.process.answer = now_s, answer
        return bool(self.watch.look([self.one]))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(stalls, "ray", PretendedRay())
    process = Process(None)
    said: list[str] = []
    watch = StallWatch(Limits(100.0, 250.0), said.append, lambda: found.now_s)
    found = World(watch, Assignment(process, "00007", "node", 0.0), process, said)
    return found


def at(stage: Stage, still_s: float) -> Whereabouts:
    return Whereabouts(stage, still_s)


def test_a_young_shard_costs_no_question(world: World) -> None:
    assert not world.look(99.0)
    assert world.process.asked == 0


def test_a_shard_that_moves_is_left_alone(world: World) -> None:
    assert not world.look(500.0, at(Stage.DECODE, 2.0))
    assert (world.said, world.one.stage, world.process.asked) == ([], "", 1)
    assert not world.look(560.0)
    assert world.process.asked == 1, "it moved lately, so nobody asked again"


def test_a_stall_is_told_once_with_its_stage_and_ends_when_it_moves(world: World) -> None:
    assert world.look(130.0, at(Stage.DECODE, 110.0))
    assert world.said == ["shard 00007 has stood still for 1 min 50 s, in the stage decode"]
    assert not world.look(170.0, at(Stage.DECODE, 150.0))
    assert len(world.said) == 1
    assert not world.look(210.0, at(Stage.COMPUTE, 1.0))
    assert world.one.stage == ""
    assert world.look(400.0, at(Stage.NETWORK, 105.0)), "a new stall"


def test_a_process_is_given_up_after_the_second_limit(world: World) -> None:
    assert world.look(130.0, at(Stage.FETCH, 110.0))
    assert not world.one.is_given_up
    world.look(280.0, at(Stage.FETCH, 260.0))
    assert world.one.is_given_up
    assert world.said[-1].endswith("in the stage fetch; its process is ended")


def test_without_a_second_limit_nobody_is_given_up(world: World) -> None:
    world.watch.limits = Limits(100.0, None)
    world.look(1e6, at(Stage.FETCH, 1e6))
    assert not world.one.is_given_up


def test_a_process_that_does_not_answer_stands_still_since_it_was_last_known_to_move(
    world: World,
) -> None:
    assert not world.look(150.0, at(Stage.DECODE, 50.0))  # it moved at 100
    assert not world.look(199.0)
    assert world.look(201.0)
    assert world.one.stage == SILENT
    assert world.said == ["shard 00007 has stood still for 1 min 41 s, its process does not answer"]
    world.look(351.0, ActorDiedError())
    assert world.one.is_given_up


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
