"""Comparisons of a study's trials: those with the rival that the study names now."""

from pathlib import Path
from typing import Any

import pytest

from jobs.report.figures import measured
from jobs.report.outcomes import Measured
from jobs.report.rivals import rivals_of
from schemas.specs.study import StudySpec
from tests.jobs.report.world import World, bundle, metric

NETS: dict[str, Any] = {"a": {}, "b": {}, "c": {}}


def study(**fields: Any) -> StudySpec:
    train = {"dataset": "d", "split": "p", "epochs": 3}
    return StudySpec.model_validate({"name": "s", "train": train, "grid": {"net": NETS}, **fields})


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A trial of each net, evaluated once; `a` is the best on the validation part."""
    world = World(tmp_path)
    nets = enumerate(NETS)
    world.add("models", [bundle(f"s-{net}", 1, net, auc=0.9 - 0.1 * n) for n, net in nets])
    for number, net in enumerate(NETS):
        world.evaluate(study(), number, metric(f"net={net}", net, 0.5 + 0.1 * number))
    return world


def compare(world: World, rival: str, p: float, version: int = 1, **more: Any) -> None:
    """Compare the third trial with that of another net."""
    name = f"s-{rival}@{version}"
    world.evaluate(
        study(),
        2,
        metric("net=c", "c", more.pop("auc", 0.7)),
        metric("net=c", "c", p, metric="delong_p", category=name),
        metric("net=c", "c", p / 2, metric="delong_p", category=f"{name}|ill", **more),
        against=f"s-{rival}",
    )


def told(world: World, metric: str = "delong_p", **fields: Any) -> float | None:
    """A figure of the third trial."""
    found = measured(study(**fields), world.store)[2].figure("test", "", metric)
    return None if found is None else found.value


A, B = {"against": {"net": "a"}}, {"against": {"net": "b"}}


def test_a_rival_switched_back_has_its_own_p_value(world: World) -> None:
    compare(world, "a", 0.01)
    compare(world, "b", 0.02)
    assert (told(world, **B), told(world, **A)) == (0.02, 0.01)
    assert told(world, "delong_p/s-a@1|ill", **A) == 0.005
    assert told(world, "delong_p/s-a@1|ill", **B) is None
    compare(world, "a", 0.03)
    assert (told(world, **B), told(world, **A)) == (0.02, 0.03)
    assert told(world, "auc", **B) == 0.7


def test_without_a_rival_there_is_no_comparison(world: World) -> None:
    compare(world, "a", 0.01)
    assert told(world) is None and told(world, "auc") == 0.7
    assert told(world, against="best") == 0.01
    assert told(world, **B) is None


def test_a_comparison_of_older_scores_is_none(world: World) -> None:
    compare(world, "a", 0.01)
    world.evaluate(study(), 2, metric("net=c", "c", 0.8))
    assert (told(world, **A), told(world, "auc", **A)) == (None, 0.8)
    compare(world, "a", 0.04, auc=0.8)
    assert told(world, **A) == 0.04


def test_a_comparison_with_an_older_version_is_none(world: World) -> None:
    compare(world, "a", 0.01)
    world.add("models", [bundle("s-a", 2, "a2")])
    assert told(world, **A) is None
    compare(world, "a", 0.05, version=2)
    assert told(world, **A) is None  # the rival has no figures yet
    world.evaluate(study(), 0, metric("net=a", "a2", 0.5))
    assert told(world, **A) == 0.05


@pytest.mark.parametrize("named", ["s-a", "s-a@1", "elsewhere"])
def test_a_bundle_that_every_trial_is_compared_with(world: World, named: str) -> None:
    world.add("models", [bundle("elsewhere", 1, "e")])
    compare(world, "b", 0.02)
    compare(world, "a", 0.01)
    world.evaluate(
        study(),
        2,
        metric("net=c", "c", 0.7),
        metric("net=c", "c", 0.06, metric="delong_p", category="elsewhere@1"),
        against="elsewhere",
    )
    assert told(world, evaluate={"against": named}) == (0.06 if named == "elsewhere" else 0.01)


def test_rivals_are_those_with_figures_and_others_than_the_trial(world: World) -> None:
    def rivals(**fields: Any) -> dict[str, str]:
        spec = study(**fields)
        return rivals_of(spec, measured(spec, world.store))

    assert rivals(against="best") == {"s-b": "s-a", "s-c": "s-a"}
    assert rivals(against="best", choose_by="ece") == {}
    assert rivals(**B) == {"s-a": "s-b", "s-c": "s-b"}
    assert rivals() == {}
    spec = study(**B)
    without = [
        Measured(one.outcome) if one.outcome.model == "s-b" else one
        for one in measured(spec, world.store)
    ]
    assert rivals_of(spec, without) == {}
