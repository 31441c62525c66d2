"""The spec of a pre-training in the words of its workers."""

from collections.abc import Mapping
from typing import Any

from jobs.settings import recipe_of, start_name
from schemas.specs.pretrain import PretrainSpec
from workers.training.config import EVERY_BLOCK

_USUAL_BATCH = 256
"""Images of a step for which learning rates are stated."""


def training_config(spec: PretrainSpec, classes: tuple[str, ...]) -> dict[str, Any]:
    """The spec in the words of `workers.models.simsiam.config.SimSiamConfig`.

    ``classes`` are those of the probe; there is none without.
    """
    probe = None
    if spec.probe is not None and classes:
        probe = {"classes": list(classes), **spec.probe.model_dump(mode="json")}
    return {
        "architecture": spec.architecture,
        "recipe": recipe_of(spec.preprocess).to_dict(),
        "stages": [
            {
                "epochs": spec.epochs,
                "unfrozen": EVERY_BLOCK,
                "learning_rate": spec.learning_rate * spec.batch_size / _USUAL_BATCH,
            }
        ],
        "batch": spec.batch_size,
        "seed": spec.seed,
        "start": start_name(spec.start),
        "precision": spec.precision,
        "views": spec.views.model_dump(mode="json"),
        "probe": probe,
        "optimisation": {
            "optimiser": "sgd",
            "weight_decay": spec.weight_decay,
            "momentum": spec.momentum,
            "plain_momentum": True,
            "schedule": "cosine",
            "warm_up_epochs": 0.0,
            "final_share": 0.0,
            "constant_part": "predictor",
        },
    }


def training_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a training's settings its result depends on: what is off is left out."""
    return {name: one for name, one in config.items() if one is not None and one != "none"}
