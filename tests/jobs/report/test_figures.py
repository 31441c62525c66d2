"""A study's figures as the lake has them: the newest of the newest bundle, and looks at test."""

from pathlib import Path
from typing import Any

import pytest

from jobs.report.figures import Looks, looks, measured, trained_otherwise
from schemas.specs.study import StudySpec
from schemas.studies import trials_of
from tests.jobs.report.world import World, bundle, metric

STUDY = StudySpec.model_validate(
    {
        "name": "s",
        "train": {"dataset": "d", "split": "p", "epochs": 3},
        "grid": {"seed": [0, 1]},
        "evaluate": {"bootstrap": 5},
    }
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def evaluated(world: World, number: int, *rows: dict[str, Any], **changes: Any) -> None:
    """An evaluation of one trial; ``changes`` are of what it asked."""
    world.evaluate(STUDY, number, *rows, **changes)


def test_figures_are_the_newest_of_the_newest_bundle(world: World) -> None:
    world.add("models", [bundle("s-seed0", 1, "old"), bundle("s-seed0", 2, "new", auc=0.7)])
    evaluated(world, 0, metric("seed=0", "new", 0.5), metric("seed=0", "new", 0.4, part="val"))
    evaluated(
        world,
        0,
        metric("seed=0", "new", 0.6),
        metric("seed=0", "new", 0.3, metric="recall", category="ill"),
        metric("seed=0", "new", 0.2, subgroup="sex=F"),
        metric("seed=0", "other", 0.99, study="t"),
    )
    evaluated(world, 0, metric("seed=0", "old", 0.8))
    evaluated(world, 1, metric("seed=1", "gone", 0.8))
    first, second = measured(STUDY, world.store)
    values = {key: figure.value for key, figure in first.figures.items()}
    assert values == {
        ("test", "", "auc"): 0.6,
        ("test", "", "recall/ill"): 0.3,
        ("test", "sex=F", "auc"): 0.2,
        ("val", "", "auc"): 0.4,  # an evaluation's, not the training's
    }
    found = first.figure("test", "", "recall")
    assert found is not None and (found.value, found.low, found.high) == (0.3, 0.1, 0.9)
    assert second.figures == {}


def test_figures_of_another_question_of_equal_names_are_none(world: World) -> None:
    severity = {"classes": ["a", "b"], "costs": [], "false_positive_weights": []}
    others: list[dict[str, Any]] = [
        {"dataset": "e"},
        {"split": "q"},
        {"fold": 1},
        {"severity": severity},
        {"age_bands": [50.0]},
        {"study": "t"},
    ]
    world.add("models", [bundle("s-seed0", 1, "m", auc=0.75)])
    for other in others:
        evaluated(world, 0, metric("seed=0", "m", 0.9), **other)
    assert [one.figures for one in measured(STUDY, world.store)] == [{}, {}]
    evaluated(world, 0, metric("seed=0", "m", 0.6), bootstrap=7, parts=["test"])
    for other in others:
        evaluated(world, 0, metric("seed=0", "m", 0.9), **other)
    found = measured(STUDY, world.store)[0].figure("test", "", "auc")
    assert found is not None and found.value == 0.6


def test_without_an_evaluation_of_validation_the_trainings_figures_count(world: World) -> None:
    world.add("models", [bundle("s-seed0", 1, "m", auc=0.75), bundle("s-seed1", 1, "n", auc=0.5)])
    evaluated(world, 0, metric("seed=0", "m", 0.5))
    first, second = measured(STUDY, world.store)
    found = first.figure("val", "", "auc")
    assert found is not None and found.value == 0.75
    assert second.figures == {}  # trained, and not yet evaluated: a gap


def test_an_empty_lake_has_gaps(world: World) -> None:
    assert [one.figures for one in measured(STUDY, world.store)] == [{}, {}]
    assert looks(STUDY, world.store) == [Looks("p", False, 0, 0)]
    assert trained_otherwise(STUDY, world.store) == []


def test_every_look_at_the_test_part_counts(world: World) -> None:
    asked = {"dataset": "d", "split": "p", "fold": None, "parts": ["val", "test"], "study": "s"}
    for change in (
        {},
        {"study": None},
        {"parts": ["test"], "study": "t"},
        {"parts": ["val"]},
        {"fold": 1},
        {"split": "q"},
        {"dataset": "e"},
    ):
        world.add_run("evaluate", asked | change, {})
    assert looks(STUDY, world.store) == [Looks("p", False, 3, 1)]
    world.add_run("evaluate_detector", asked | {"study": "boxes"}, {})
    world.add_run("evaluate_detector", asked | {"parts": ["val"]}, {})
    world.add_run("review", asked, {})
    assert looks(STUDY, world.store) == [Looks("p", False, 4, 1)]
    folded = STUDY.model_copy(update={"train": {**STUDY.train, "fold": 0}})
    assert looks(folded, world.store) == [Looks("p", True, 1, 1)]
    blind = STUDY.model_copy(update={"evaluate": {"parts": ["val"]}})
    assert looks(blind, world.store) == []


def test_trials_of_other_settings_are_named(world: World) -> None:
    first, second = (trial.jobs[0].model_dump(mode="json") for trial in trials_of(STUDY))
    world.add_run("train", first, {})
    world.add_run("train", second | {"epochs": 1}, {})
    assert trained_otherwise(STUDY, world.store) == ["seed=1"]
    # What only says where and how fast does not count.
    world.add_run("train", second | {"execution": {"workers": 3}, "use_prepared": False}, {})
    assert trained_otherwise(STUDY, world.store) == []
    world.add_run("train", second | {"epochs": 9}, {})
    world.add_run("train", first | {"no_longer_a_field": 1}, {})
    assert trained_otherwise(STUDY, world.store) == ["seed=0", "seed=1"]


def test_trials_of_stages_are_recognised(world: World) -> None:
    stages = [
        {"epochs": 2, "learning_rate": 0.1, "unfrozen": 0},
        {"epochs": 1, "learning_rate": 1.0},
    ]
    train = {"dataset": "d", "split": "p", "stages": stages, "head": "softmax"}
    study = STUDY.model_copy(update={"train": train})
    first, second = (trial.jobs[0].model_dump(mode="json") for trial in trials_of(study))
    world.add_run("train", first, {})
    world.add_run("train", second | {"stages": stages[:1]}, {})
    assert trained_otherwise(study, world.store) == ["seed=1"]


def test_a_field_that_came_later_had_its_default(world: World) -> None:
    first, second = (trial.jobs[0].model_dump(mode="json") for trial in trials_of(STUDY))
    for job in (first, second):
        del job["ema_decay"], job["calibrate"], job["optimizer"]["schedule"]
    world.add_run("train", first, {})
    world.add_run("train", second | {"optimizer": {"name": "sgd"}}, {})
    assert trained_otherwise(STUDY, world.store) == ["seed=1"]
