"""The spec of a detector's training in the words of its workers."""

from collections.abc import Mapping
from typing import Any

from jobs.settings import optimisation_settings, recipe_of, stage_settings, start_name
from schemas.specs.train_detector import DetectorSpec

_USUAL_MOSAIC = {"centernet": 0.0, "yolox": 0.5}


def training_config(spec: DetectorSpec, classes: tuple[str, ...]) -> dict[str, Any]:
    """The spec in the words of `workers.detection.config.DetectorConfig`."""
    augment = spec.augment
    loss, final_loss = _losses(spec)
    mosaic = _USUAL_MOSAIC[spec.family] if augment.mosaic is None else augment.mosaic
    return {
        "family": spec.family,
        "architecture": spec.resolved_architecture,
        "classes": list(classes),
        "recipe": recipe_of(spec.preprocess).to_dict(),
        "stages": stage_settings(spec.resolved_stages),
        "network": {"neck": spec.neck} if spec.family == "centernet" else {},
        "batch": spec.batch_size,
        "seed": spec.seed,
        "start": start_name(spec.start),
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
        "optimisation": optimisation_settings(spec.optimizer),
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
