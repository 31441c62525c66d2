"""Settings that trainings of all kinds share, in the words of their workers."""

from collections.abc import Sequence
from typing import Any

from schemas.specs.preprocessing import Preprocessing
from schemas.specs.train import Optimizer, Stage
from workers.pixels.steps import Recipe
from workers.training.config import EVERY_BLOCK, StartName


def recipe_of(preprocess: Preprocessing) -> Recipe:
    """The recipe that makes the pixels."""
    return Recipe.from_dict(preprocess.model_dump(mode="json"))


def start_name(start: str) -> StartName:
    """Where first weights come from; ``start`` is as in `jobs.starting.Starting`."""
    names: dict[str, StartName] = {"none": "none", "pretrained": "timm"}
    return names.get(start, "checkpoint")


def stage_settings(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Stages in the words of `workers.training.config.Stage`."""
    return [
        {
            "epochs": one.epochs,
            "unfrozen": EVERY_BLOCK if one.unfrozen == "all" else one.unfrozen,
            "learning_rate": one.learning_rate,
        }
        for one in stages
    ]


def optimisation_settings(optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer in the words of `workers.training.config.Optimisation`."""
    return {
        "optimiser": optimizer.name,
        "weight_decay": optimizer.weight_decay,
        "momentum": optimizer.momentum,
        "schedule": optimizer.schedule,
        "warm_up_epochs": optimizer.warmup_epochs,
        "clip_norm": optimizer.clip_norm or 0.0,
    }
