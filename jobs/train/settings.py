"""The spec of a training in the words of its workers."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from jobs.settings import optimisation_settings, recipe_of, stage_settings, start_name
from schemas.specs.train import Stage, TrainSpec
from workers.training.config import Augmentation, Optimisation, TrainConfig
from workers.training.costs import check_costs


def training_config(spec: TrainSpec, classes: tuple[str, ...]) -> dict[str, Any]:
    """The spec in the words of `workers.training.config.TrainConfig`.

    Raises:
        UsageError: if the costs of the loss don't fit the classes.
    """
    if spec.loss.name == "cost":
        check_costs(spec.loss.costs, classes)
    augment = spec.augment
    return {
        "architecture": spec.architecture,
        "classes": list(classes),
        "recipe": recipe_of(spec.preprocess).to_dict(),
        "stages": stage_settings(_stages(spec)),
        "batch": spec.batch_size,
        "seed": spec.seed,
        "start": start_name(spec.start),
        "precision": spec.precision,
        "head": spec.head,
        "loss": spec.loss.model_dump(mode="json"),
        "balance": spec.balance,
        "ema_decay": spec.ema_decay or 0.0,
        "calibrate": spec.calibrate,
        "label_smoothing": spec.label_smoothing,
        "stop_after": spec.patience or 0,
        "optimisation": optimisation_settings(spec.optimizer),
        "augmentation": {
            "rotate_deg": augment.rotate_degrees,
            "translate": augment.translate,
            "scale": augment.scale,
            "aspect": augment.aspect,
            "blur_px": augment.blur_px,
            "shear_deg": augment.shear_degrees,
            "flip": augment.flip,
            "brightness": augment.brightness,
            "contrast": augment.contrast,
            "mixup": augment.mixup,
            "randaugment": (
                [augment.randaugment.operations, augment.randaugment.magnitude]
                if augment.randaugment
                else None
            ),
        },
    }


def training_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a training's settings its result depends on, those that workers decide included.

    Left out is what has no effect: fields that are off, and those of methods that are not used. So
    a method that a later release adds trains nothing anew.
    """
    stated = TrainConfig.from_dict(config).to_dict()
    for name, kind in (("optimisation", Optimisation), ("augmentation", Augmentation)):
        stated[name] = _active(stated[name], kind)
    loss, optimisation = stated["loss"], stated["optimisation"]
    for field, needed in _OF_LOSS.items():
        if loss["name"] != needed:
            loss.pop(field)
    if optimisation["optimiser"] != "sgd":
        optimisation.pop("momentum", None)
    if optimisation["schedule"] != "cosine":
        optimisation.pop("final_share", None)
    found = _active(stated, TrainConfig)
    if found.get("head") == "corn":  # it has a loss of its own
        del found["loss"]
    return found


_OF_LOSS = {"gamma": "focal", "costs": "cost", "cross_entropy_share": "cost"}


def _active(
    stated: Mapping[str, Any], kind: type[TrainConfig | Optimisation | Augmentation]
) -> dict[str, Any]:
    """The values without those that are off and are so by default."""
    off = {one.name: one.default for one in fields(kind) if one.default in (None, False, 0, "none")}
    return {name: one for name, one in stated.items() if name not in off or one != off[name]}


def _stages(spec: TrainSpec) -> tuple[Stage, ...]:
    one = Stage(
        epochs=spec.epochs, unfrozen=spec.unfrozen, learning_rate=spec.optimizer.learning_rate
    )
    return spec.stages or (one,)
