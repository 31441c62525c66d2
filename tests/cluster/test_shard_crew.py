"""How many processes a run asks for, as the cluster stands and may grow; on a pretended Ray."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster import shard_crew
from cluster.shard_crew import ShardCrew
from cluster.slots import Growth
from cluster.watching.stalls import Limits
from schemas.errors import RunError
from schemas.specs.base import Execution


@dataclass
class Cluster:
    """Counts what is hired; ``there`` processes fit it."""

    there: int
    growth: Growth = field(default_factory=lambda: Growth(0))
    hired: int = 0
    killed: int = 0
    now_s: float = 0.0

    def remote(self, _kind: type) -> "Cluster":
        return self

    def options(self, **_: object) -> Any:
        outer = self

        class Method:
            def remote(self, *_: object) -> object:
                return object()

        class Actor:
            ready = Method()

            @staticmethod
            def remote(*_: object) -> "Actor":
                outer.hired += 1
                return Actor()

        return Actor

    def kill(self, _: object) -> None:
        self.killed += 1

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.there)}

    def monotonic(self) -> float:
        return self.now_s


def crew_of(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, execution: Execution) -> ShardCrew:
    @dataclass
    class Plan:
        name: str = "toy"
        kind: str = "clean"
        params: Any = field(default_factory=dict)

    @dataclass
    class Run:
        id: str = "R"
        plan: Plan = field(default_factory=Plan)

    monkeypatch.setattr(shard_crew, "ray", cluster)
    monkeypatch.setattr(shard_crew, "time", cluster)
    monkeypatch.setattr(shard_crew, "fitting", lambda gpus: cluster.there)
    monkeypatch.setattr(shard_crew, "growth", lambda gpus: cluster.growth)
    run: Any = Run()
    return ShardCrew(run, "lake", execution, Limits(600.0))


@pytest.mark.parametrize(
    ("there", "growth", "workers", "hired"),
    [
        (4, Growth(0), None, 4),
        (4, Growth(0), 16, 4),  # it won't grow, so more would wait for ever
        (4, Growth(64), None, 4),  # it may grow, but nobody asks
        (4, Growth(64), 16, 16),
        (4, Growth(8), 16, 8),
        (0, Growth(64), None, 1),  # one that waits asks for a first node
        (4, Growth(10, is_stated=True), None, 10),
        (4, Growth(10, is_stated=True), 6, 6),
        (12, Growth(10, is_stated=True), None, 12),
    ],
)
def test_how_many_processes_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, there: int, growth: Growth, workers: int | None, hired: int
) -> None:
    cluster = Cluster(there, growth)
    crew = crew_of(monkeypatch, cluster, Execution(workers=workers))
    crew.begin(300)
    crew.hire(waiting=300, working=0)
    assert cluster.hired == hired == len(crew.starting)
    crew.hire(waiting=300, working=0)
    assert cluster.hired == hired, "those that start are counted"


def test_a_run_widens_with_its_cluster_but_looks_only_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(2)
    crew = crew_of(monkeypatch, cluster, Execution())
    crew.begin(300)
    crew.hire(300, working=0)
    cluster.there = 6
    crew.hire(300, working=0)
    assert cluster.hired == 2
    cluster.now_s += 2
    crew.hire(300, working=0)
    assert cluster.hired == 6


def test_whoever_has_not_started_when_no_shard_waits_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(4)
    crew = crew_of(monkeypatch, cluster, Execution())
    crew.begin(300)
    crew.hire(4, working=0)
    crew.hire(0, working=1)
    assert (cluster.killed, len(crew.starting)) == (4, 0)


def test_a_run_waits_half_an_hour_for_room_it_once_had(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(1)
    crew = crew_of(monkeypatch, cluster, Execution())
    crew.begin(3)
    cluster.there, cluster.now_s = 0, 10.0
    crew.hire(2, working=1)
    for now_s in (20.0, 1819.0):
        cluster.now_s = now_s
        crew.hire(3, working=0)
    cluster.now_s = 1821.0
    with pytest.raises(RunError, match="No process fits the cluster"):
        crew.hire(3, working=0)


def test_without_room_or_growth_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = crew_of(monkeypatch, Cluster(0), Execution(workers=4))
    with pytest.raises(RunError, match="got 0 CPUs and 0 GPUs"):
        crew.begin(3)
