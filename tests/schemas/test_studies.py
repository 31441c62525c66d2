"""Studies as trials: labels, merging, names, and mistakes told by line before anything runs."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.errors import JobFileError
from schemas.grids import Point, label_of, merge, safe_name, trial_name
from schemas.jobfile import load
from schemas.jobschema import kind_schema, schema_at
from schemas.specs.embed import EmbedSpec
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.study import StudySpec
from schemas.specs.train import TrainSpec
from schemas.studies import trials_of

TRAIN: dict[str, Any] = {
    "dataset": "ct",
    "split": "ct-safe",
    "optimizer": {"learning_rate": 0.01, "schedule": "step"},
}


def study(**fields: Any) -> StudySpec:
    return StudySpec.model_validate({"name": "hand", "train": TRAIN, **fields})


GRID: dict[str, Any] = {
    "backbone": {
        "VGG-16": {"architecture": "vgg16", "optimizer": {"weight_decay": 0.5}},
        "ResNet-18": {"architecture": "resnet18"},
    },
    "optimizer.learning_rate": [0.1, 0.001],
    "fold": [0, 1, 2],
}


def test_every_combination_is_a_trial_in_the_order_of_the_grid() -> None:
    trials = trials_of(study(grid=GRID))
    assert [tuple(one.labels.values()) for one in trials[:4]] == [
        ("VGG-16", "0.1", "0"),
        ("VGG-16", "0.1", "1"),
        ("VGG-16", "0.1", "2"),
        ("VGG-16", "0.001", "0"),
    ]
    assert len(trials) == 12
    assert trials[0].text == "backbone=VGG-16, optimizer.learning_rate=0.1, fold=0"
    assert trials[0].name == "hand-VGG-16-learning_rate0.1-fold0"
    assert len({one.name for one in trials}) == 12


def test_fields_are_merged_deeply_and_the_rest_is_the_base() -> None:
    train = trials_of(study(grid=GRID))[3].jobs[0]
    assert isinstance(train, TrainSpec)
    assert (train.architecture, train.fold, train.dataset) == ("vgg16", 0, "ct")
    optimizer = train.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay) == (0.001, 0.5)
    assert optimizer.schedule == "step"
    assert merge({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}}


def test_trials_train_alone_and_leave_backends_unmeasured_unless_told_otherwise() -> None:
    (trial,) = trials_of(study())
    train = trial.jobs[0]
    assert isinstance(train, TrainSpec)
    assert (train.world_size, train.backends, train.model) == (1, "eager", "hand")
    assert (trial.text, trial.world_size) == ("only", 1)
    told = {**TRAIN, "world_size": 2, "backends": "measured"}
    (trial,) = trials_of(study(train=told))
    assert trial.world_size == 2
    assert isinstance(trial.jobs[0], TrainSpec) and trial.jobs[0].backends == "measured"


def test_a_trial_is_train_score_evaluate() -> None:
    made = study(
        grid={"fold": [1]},
        score={"backend": "torch-fp32"},
        evaluate={"bootstrap": 7, "subgroups": ["sex"]},
        gpus_per_trial=0.5,
        retry_rejects=True,
    )
    train, score, evaluate = trials_of(made)[0].jobs
    assert isinstance(score, ScoreSpec)
    assert (score.model, score.dataset, score.backend) == ("hand-fold1", "ct", "torch-fp32")
    assert isinstance(evaluate, EvaluateSpec)
    assert (evaluate.study, evaluate.trial, evaluate.fold) == ("hand", "fold=1", 1)
    assert (evaluate.bootstrap, evaluate.subgroups, evaluate.split) == (7, ("sex",), "ct-safe")
    assert evaluate.pictures is False
    assert {job.execution.gpus_per_worker for job in (train, score, evaluate)} == {0.5}
    assert score.retry_rejects


def test_the_svm_head_adds_features_a_machine_and_its_figures() -> None:
    trial = trials_of(study(grid={"seed": [3]}, heads=["network", "svm"], svm={"c": 9}))[0]
    kinds = [job.kind for job in trial.jobs]
    assert kinds == ["train", "score", "evaluate", "embed", "train", "score", "evaluate"]
    embed, machine, score, evaluate = trial.jobs[3:]
    assert isinstance(embed, EmbedSpec) and embed.model == "hand-seed3"
    assert isinstance(machine, TrainSpec)
    assert (machine.model, machine.head, machine.start) == (
        "hand-seed3-svm",
        "svm",
        "bundle:hand-seed3",
    )
    assert (machine.svm.c, machine.world_size) == (9, 1)
    assert "seed" not in machine.model_fields_set  # a machine has no use for it
    assert isinstance(score, ScoreSpec) and score.model == "hand-seed3-svm"
    assert isinstance(evaluate, EvaluateSpec) and evaluate.trial == "seed=3, head=svm"
    assert [one.labels["head"] for one in trial.outcomes] == ["network", "svm"]
    assert [one.text for one in trial.outcomes] == ["seed=3", "seed=3, head=svm"]
    alone = trials_of(study(heads=["svm"]))[0]
    assert [job.kind for job in alone.jobs] == ["train", "embed", "train", "score", "evaluate"]


def test_another_data_set_may_be_evaluated_on_and_knows_no_fold_of_the_training() -> None:
    made = study(grid={"fold": [0]}, evaluate={"dataset": "other", "split": "other-safe"})
    _, score, evaluate = trials_of(made)[0].jobs
    assert isinstance(score, ScoreSpec) and score.dataset == "other"
    assert isinstance(evaluate, EvaluateSpec)
    assert (evaluate.dataset, evaluate.split, evaluate.fold) == ("other", "other-safe", None)


def test_only_leaves_trials_out_and_changes_no_name() -> None:
    every = {one.name for one in trials_of(study(grid=GRID))}
    some = trials_of(study(grid=GRID, only={"backbone": ["ResNet-18"], "fold": [2]}))
    assert [one.labels["fold"] for one in some] == ["2", "2"]
    assert {one.name for one in some} < every
    chosen = study(grid=GRID, only={"fold": [2, 0]})
    assert chosen.axes["fold"] == ["0", "2"]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (3, "3"), (1e-3, "0.001"), (True, "true"), (None, "null"), ("A b", "A b"),
        (["A", "B"], "A+B"), ([], "none"), ({"b": 1, "a": 2}, '{"a": 2, "b": 1}'),
    ],
)  # fmt: skip
def test_labels_read_as_in_the_file(value: object, label: str) -> None:
    assert label_of(value) == label


def test_names_are_safe_short_and_their_own() -> None:
    assert safe_name(["study", "VGG-16", "0.5"]) == "study-VGG-16-0.5"
    spaced, dashed = safe_name(["study", "a b"]), safe_name(["study", "a-b"])
    assert spaced != dashed and spaced.startswith("study-a-b-")
    long = [safe_name(["study", letter * 200]) for letter in "xy"] + [safe_name(["s", "x" * 199])]
    assert {len(name) for name in long} == {100}
    assert len(set(long)) == 3
    # Written down: a name that changed would train everything again.
    assert spaced == "study-a-b-f436e640"
    assert trial_name("s", Point({}, ())) == "s"


def mistakes(folder: Path, text: str, profile: str | None = None) -> list[str]:
    path = folder / "job.yaml"
    path.write_text(text)
    with pytest.raises(JobFileError) as error:
        load(path, profile=profile, env={})
    return [str(one).removeprefix(f"{path}:") for one in error.value.mistakes]


WRONG = """\
lake: ./lake
jobs:
  - kind: study
    name: hand
    train:
      dataset: ct
      split: ct-safe
      epoch: 3
      model: mine
    grid:
      backbone:
        VGG-16: {architecture: 16}
        ResNet-18: {optimizer: {momentum: 2}}
      fold: [0, -1]
      optimizer.learning_rat: [1, 2]
    evaluate: {bootstrp: 10}
    only: {fold: [0, 7]}
"""


def test_mistakes_of_trials_are_told_where_they_stand(tmp_path: Path) -> None:
    found = mistakes(tmp_path, WRONG)
    only = "17: jobs.hand.only.fold[1]: is no value of fold; got 7; allowed: 0, -1"
    assert found == [only]
    found = mistakes(tmp_path, WRONG.replace("[0, 7]", "[0]"))
    assert [one.partition(";")[0] for one in found] == [
        "8: jobs.hand.train.epoch: is no field here (did you mean epochs?)",
        "9: jobs.hand.train.model: is what the study itself says to its trials: leave it out here",
        "12: jobs.hand.grid.backbone.VGG-16.architecture: has the wrong type",
        "13: jobs.hand.grid.backbone.ResNet-18.optimizer.momentum: is out of range",
        "14: jobs.hand.grid.fold[1]: is out of range",
        "15: jobs.hand.grid.optimizer.learning_rat: is no field here (did you mean learning_rate?)",
        "16: jobs.hand.evaluate.bootstrp: is no field here (did you mean bootstrap?)",
    ]
    assert found[3].endswith("got 2; allowed: a number >= 0 and < 1")
    assert found[4].endswith("got -1; allowed: a whole number >= 0 or null")


def job(grid: str, tables: str = "[]", train: str = "") -> str:
    return (
        "lake: ./lake\njobs:\n  - kind: study\n    name: hand\n"
        f"    train: {{dataset: ct, split: s{train}}}\n    grid: {grid}\n    tables: {tables}\n"
        "    heads: [network, svm]\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            job("{loss: {ce: {}, cost: {loss: {name: cost}}}, seed: [0, 1]}"),
            "6: jobs.hand.grid.loss.cost.loss: loss cost needs costs, a row for each actual class",
        ),
        (
            job("{seed: [0, 1]}", train=", epochs: 2, stages: [{epochs: 1, learning_rate: 1}]"),
            "5: jobs.hand.train: stages take the place of epochs and unfrozen: leave these out",
        ),
        (
            job("{a: {x: {epochs: 2}}, stages: [[{epochs: 1, learning_rate: 1}]]}"),
            "6: jobs.hand.grid.stages[0]: stages take the place of epochs",
        ),
        (job("{head: {x: {}}}"), "6: jobs.hand.grid.head: is a word of tables"),
        (job("{seed: []}"), "6: jobs.hand.grid.seed: has no values"),
        (job("{seed: [1, 2, 1]}"), "6: jobs.hand.grid.seed: has the value 1 twice"),
        (
            job("{a: {x: }}"),
            "6: jobs.hand.grid.a.x: has the wrong type; got ''; allowed: a mapping",
        ),
        (job("{unfrozen: [0, -1]}"), "6: jobs.hand.grid.unfrozen[1]: is out of range; got -1"),
        (job("{a: 3}"), "6: jobs.hand.grid.a: has the wrong type; got 3; allowed: a mapping of"),
        (
            job("{a: {x-y: {}, x: {}}, b: {z: {}, y-z: {}}}"),
            "6: jobs.hand.grid: gives two bundles the name hand-x-y-z: a=x-y, b=z; a=x, b=y-z",
        ),
        (
            job("{a: {x: {}, x-svm: {}}}"),
            "6: jobs.hand.grid: gives two bundles the name hand-x-svm: a=x, head=svm; a=x-svm",
        ),
        (
            job("{seed: [1]}", "[{name: t, rows: [sed], where: {head: svm}}]"),
            "7: jobs.hand.tables[0].rows[0]: is no axis (did you mean seed?)",
        ),
        (
            job("{seed: [1]}", "[{name: t, rows: [seed]}]"),
            "7: jobs.hand.tables[0].rows: would average over heads",
        ),
        (
            job("{seed: [1]}", "[{name: t, rows: [seed, seed], where: {head: svm}}]"),
            "7: jobs.hand.tables[0].rows[0]: is shown twice",
        ),
        (
            job("{seed: [1]}", "[{name: t, rows: [seed], columns: [head]}]"),
            "7: jobs.hand.tables[0].metrics: are several",
        ),
        (
            job("{seed: [1]}", "[{name: t, rows: [seed, head], subgroup: sex=F}]"),
            "7: jobs.hand.tables[0].subgroup: is none that `evaluate` computes: add sex",
        ),
        (
            job(
                "{seed: [1]}", "[{name: t, rows: [seed, metric], columns: [head], mean_rows: true}]"
            ),
            "7: jobs.hand.tables[0].mean_rows: takes means over the last axis of rows",
        ),
    ],
)
def test_each_mistake_of_a_grid_or_table_is_told(tmp_path: Path, text: str, said: str) -> None:
    found = mistakes(tmp_path, text)
    assert any(one.startswith(said) for one in found), found


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("against: {sed: 1}", "9: jobs.hand.against.sed: is no axis; got 1; allowed: seed, head"),
        ("against: {seed: 7}", "9: jobs.hand.against.seed: is no value of seed; got 7; allowed: 1"),
        ("against: {head: net}", "9: jobs.hand.against.head: is no value of head"),
        ("against: {}", "9: jobs.hand.against: names no label"),
        ("against: worst", "9: jobs.hand.against: is not one of the allowed values"),
        (
            "against: best\n    evaluate: {against: other}",
            "10: jobs.hand.evaluate.against: names what every trial is compared with",
        ),
    ],
)
def test_each_mistake_of_a_comparison_is_told(tmp_path: Path, fields: str, said: str) -> None:
    found = mistakes(tmp_path, job("{seed: [1, 2]}") + f"    {fields}\n")
    assert any(one.startswith(said) for one in found), found


@pytest.mark.parametrize("metric", ["mcnemar_p", "delong_p", "delong_patients_p/m@1"])
def test_p_values_are_not_averaged(tmp_path: Path, metric: str) -> None:
    shown = f"metrics: {{p: {metric}}}, where: {{head: svm}}"
    grid = "{seed: [1, 2], fold: [0, 1]}"
    found = mistakes(tmp_path, job(grid, f"[{{name: t, rows: [seed], {shown}}}]"))
    (one,) = found
    assert one.startswith("7: jobs.hand.tables[0].metrics: would average p-values over fold: let")
    path = tmp_path / "job.yaml"
    path.write_text(
        job(grid, f"[{{name: t, rows: [seed, fold], {shown}}}]") + "    against: best\n"
    )
    (made,) = load(path, env={}).jobs
    assert isinstance(made, StudySpec) and made.against == "best"


def test_a_bundle_is_made_by_one_job_of_a_file(tmp_path: Path) -> None:
    train = "{kind: train, dataset: ct, split: s"
    text = (
        "lake: ./lake\njobs:\n"
        f"  - {train}, name: start, model: nets-x}}\n"
        f"  - {train}, name: again, model: nets-x}}\n"
        "  - kind: study\n    name: nets\n"
        "    train: {dataset: ct, split: s}\n    heads: [svm]\n"
        "    grid: {a: {x: {}, y: {}}}\n    only: {a: [y]}\n"
        "  - kind: study\n    name: nets-y\n"
        "    train: {dataset: ct, split: s}\n    grid: {a: {svm: {}, z: {}}}\n"
    )
    found = mistakes(tmp_path, text)
    assert [one.partition(";")[0] for one in found] == [
        "4: jobs.again.model: makes the bundle nets-x, which start makes, too",
        "6: jobs.nets.name: makes the bundle nets-x, which start makes, too",
        "12: jobs.nets-y.name: makes the bundle nets-y-svm, which nets (a=y, head=svm) makes, too",
    ]
    assert mistakes(tmp_path, text.replace("model: nets-x", "model: other", 1)) == [
        one.replace("start", "again") for one in found[1:]
    ]


def test_a_profile_may_choose_labels(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "lake: ./lake\njobs:\n  - kind: study\n    train: {dataset: ct, split: s}\n"
        "    grid: {seed: [0, 1, 2]}\n"
        "profiles:\n  smoke: {jobs: {study: {only: {seed: [0]}, train: {epochs: 1}}}}\n"
    )
    (smoke,) = load(path, profile="smoke", env={}).jobs
    assert isinstance(smoke, StudySpec)
    assert [one.text for one in trials_of(smoke)] == ["seed=0"]


def test_a_study_made_in_code_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="is no field|Extra inputs"):
        study(grid={"x": {"y": {"architectur": "resnet18"}}})


def test_the_schema_describes_the_fields_of_the_nested_kinds() -> None:
    schema = kind_schema("study")
    rate = schema_at(schema, ("grid", "a", "b", "optimizer", "learning_rate"))
    assert rate is not None and rate["exclusiveMinimum"] == 0
    assert schema_at(schema, ("train", "model")) is None
    assert schema_at(schema, ("evaluate", "bootstrap")) is not None


def test_every_kind_of_training_counts_among_what_makes_a_bundle(tmp_path: Path) -> None:
    kinds = ("train", "pretrain", "train_detector, annotations: a")
    trained = [f"  - {{kind: {one}, dataset: ct, split: s, model: m}}\n" for one in kinds]
    found = mistakes(tmp_path, "lake: ./lake\njobs:\n" + "".join(trained))
    assert [one.partition(";")[0] for one in found] == [
        "4: jobs.pretrain.model: makes the bundle m, which train makes, too",
        "5: jobs.train_detector.model: makes the bundle m, which train makes, too",
    ]


@pytest.mark.parametrize(
    ("job", "field"),
    [
        ("kind: train, dataset: ct, split: s, model: nightly", "train.model"),
        (
            "kind: train, dataset: ct, split: s, model: nightly, head: svm, start: 'bundle:m'",
            "train.model",
        ),
        ("kind: pretrain, dataset: ct, split: s, model: nightly", "pretrain.model"),
        (
            "kind: train_detector, dataset: ct, split: s, annotations: a, model: nightly",
            "train_detector.model",
        ),
        ("kind: study, name: nightly, train: {dataset: ct, split: s}, grid: {}", "nightly.name"),
    ],
)
def test_no_bundle_is_called_what_stands_for_all_that_are_marked(
    tmp_path: Path, job: str, field: str
) -> None:
    (found,) = mistakes(tmp_path, f"lake: ./lake\njobs:\n  - {{{job}}}\n")
    assert found.startswith(
        f"3: jobs.{field}: makes a bundle `nightly`, which in a score job stands for every bundle "
        "that is marked for nights: give it another name; got nightly"
    )
