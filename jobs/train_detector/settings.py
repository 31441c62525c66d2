"""The spec of a detector's training in the words of its workers."""

from collections.abc import Mapping
from typing import Any

from schemas.specs.train_detector import DetectorSpec
from workers.pixels.steps import Recipe
from workers.training.config import EVERY_BLOCK

_USUAL_MOSAIC = {"centernet": 0.0, "yolox": 0.5}


def training_config(spec: DetectorSpec, classes: tuple[str, ...]) -> dict[str, Any]:
    """The spec in the words of `workers.detection.config.DetectorConfig`."""
    optimizer, augment = spec.optimizer, spec.augment
    loss, final_loss = _losses(spec)
    mosaic = _USUAL_MOSAIC[spec.family] if augment.mosaic is None else augment.mosaic
    return {
        "family": spec.family,
        "architecture": spec.resolved_architecture,
        "classes": list(classes),
        "recipe": recipe_of(spec).to_dict(),
        "stages": [
            {
                "epochs": one.epochs,
                "unfrozen": EVERY_BLOCK if one.unfrozen == "all" else one.unfrozen,
                "learning_rate": one.learning_rate,
            }
            for one in spec.resolved_stages
        ],
        "batch": spec.batch_size,
        "seed": spec.seed,
        "start": {"none": "none", "pretrained": "timm"}.get(spec.start, "checkpoint"),
        "precision": spec.precision,
        "loss": loss,
        "final_epochs": spec.resolved_final_epochs,
        "final_loss": final_loss,
        "ema_decay": spec.ema_decay or 0.0,
        "ema_ramp": spec.ema_ramp_steps,
        "stop_after": spec.patience or 0,
        "one_class": spec.one_class,
        "limit": spec.limit,
        "least_score": spec.least_score,
        "optimisation": {
            "optimiser": optimizer.name,
            "weight_decay": optimizer.weight_decay,
            "momentum": optimizer.momentum,
            "schedule": optimizer.schedule,
            "warm_up_epochs": optimizer.warmup_epochs,
            "clip_norm": optimizer.clip_norm or 0.0,
        },
        "augmentation": {
            **augment.model_dump(mode="json"),
            "mosaic": mosaic,
        },
    }


def _losses(spec: DetectorSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the family's loss, and those of the final epochs."""
    loss = spec.loss
    if spec.family == "yolox":
        return {"l1": loss.l1 == "always"}, {"l1": loss.l1 != "never"}
    options = {
        "radius": loss.radius,
        "min_overlap": loss.min_overlap,
        "size_weight": loss.size_weight,
        "offset_weight": loss.offset_weight,
    }
    return options, {}


def recipe_of(spec: DetectorSpec) -> Recipe:
    """The recipe that makes the pixels."""
    return Recipe.from_dict(spec.preprocess.model_dump(mode="json"))


def training_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a training's settings its result depends on: what has no effect is left out."""
    found = {name: one for name, one in config.items() if one not in (0, None, False, {}, "none")}
    optimisation = dict(found["optimisation"])
    if optimisation["optimiser"] != "sgd":
        optimisation.pop("momentum")
    augmentation = dict(found["augmentation"])
    if not augmentation["mosaic"]:
        augmentation.pop("zoom")
    if "ema_decay" not in found:
        found.pop("ema_ramp", None)
    if "final_epochs" not in found:
        found.pop("final_loss", None)
    return found | {"optimisation": optimisation, "augmentation": augmentation}
