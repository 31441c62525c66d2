"""What a job would silently ignore, or can't mean, is refused before anything runs."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.specs.embed import EmbedSpec
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.explain import ExplainSpec
from schemas.specs.train import TrainSpec

BASE = {"dataset": "d", "split": "s", "model": "m"}
SVM = {"head": "svm", "start": "bundle:net"}
STAGES = [{"epochs": 3, "learning_rate": 0.1}, {"epochs": 1, "learning_rate": 0.01}]
THREE = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        *(
            (SVM | {name: value}, f"head svm has no use for {name}")
            for name, value in {
                "calibrate": False, "seed": 3, "optimizer": {}, "epochs": 3, "augment": {},
                "loss": {}, "unfrozen": 2, "batch_size": 8, "precision": "bf16",
                "label_smoothing": 0.1, "ema_decay": 0.9, "patience": 2, "world_size": 2,
                "stages": STAGES,
            }.items()
        ),
        ({"svm": {"c": 2}}, "svm is of the head svm"),
        (SVM | {"svm": {"gamma": 0}}, "greater than 0"),
        (SVM | {"svm": {"kernel": "linear", "gamma": 0.1}}, "gamma is of the kernel rbf"),
        ({"stages": STAGES, "optimizer": {"learning_rate": 0.1}}, "each stage has a learning_rate"),
        ({"stages": STAGES, "optimizer": {"warmup_epochs": 2}}, "more than the 1 epochs there are"),
        ({"epochs": 3, "optimizer": {"warmup_epochs": 3.5}}, "of 3.5 are more than the 3 epochs"),
        ({"optimizer": {"momentum": 0.8}}, "momentum is of sgd"),
        ({"augment": {"scale": 1.0}}, "less than 1"),
        ({"loss": {"gamma": 1.0}}, "gamma is of the loss focal"),
        ({"loss": {"name": "focal", "costs": [[0, 1], [1, 0]]}}, "costs is of the loss cost"),
        ({"loss": {"cross_entropy_share": 0.5}}, "cross_entropy_share is of the loss cost"),
        ({"head": "corn"}, "head corn needs classes"),
        ({"loss": {"name": "cost", "costs": [[0, 1], [1, 0]]}}, "loss cost needs classes"),
        (
            {"loss": {"name": "cost", "costs": [[0, 1], [1, 0]]}, "classes": THREE},
            "must have 3 rows and columns",
        ),
        ({"classes": ["a", "a"]}, "name one class twice"),
        ({"classes": ["a", "b"], "positive": "c"}, "positive is none of the classes a, b"),
        ({"classes": THREE, "positive": "c"}, "positive is for two classes"),
    ],
)  # fmt: skip
def test_a_training_with_useless_settings_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainSpec.model_validate({**BASE, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        SVM | {"world_size": 1, "svm": {"gamma": 0.1}, "balance": "weights"},
        {"stages": STAGES, "optimizer": {"warmup_epochs": 1, "weight_decay": 0.1}},
        {"epochs": 1},
        {"optimizer": {"name": "sgd", "momentum": 0.8}},
        {"loss": {"name": "cost", "costs": [[0, 1], [1, 0]]}, "classes": ["a", "b"]},
        {"loss": {"name": "focal", "gamma": 1}},
        {"head": "corn", "classes": THREE},
    ],
)  # fmt: skip
def test_settings_that_count_are_taken(fields: dict[str, Any]) -> None:
    TrainSpec.model_validate({**BASE, **fields})


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (EvaluateSpec, {"age_bands": [50]}, "age_bands are of the subgroup age"),
        (EvaluateSpec, {"fold": 0, "parts": ["test"]}, "fold takes the place of parts"),
        (EvaluateSpec, {"bootstrap": 0, "seed": 1}, "seed is of the bootstrap"),
        (EvaluateSpec, {"parts": []}, "at least 1"),
        (EmbedSpec, {"split": None, "parts": ["val"]}, "parts need split"),
        (ExplainSpec, {"split": None, "parts": ["val"]}, "parts need split"),
    ],
)
def test_other_jobs_refuse_what_they_would_ignore(
    kind: type[EvaluateSpec | EmbedSpec | ExplainSpec], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        kind.model_validate({**BASE, **fields})
