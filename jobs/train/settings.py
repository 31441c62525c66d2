"""The spec of a training in the words of its workers."""

from typing import Any

from schemas.specs.train import TrainSpec
from workers.pixels.steps import Recipe


def training_config(spec: TrainSpec, classes: tuple[str, ...]) -> dict[str, Any]:
    """The spec in the words of `workers.training.config.TrainConfig`."""
    optimizer, augment = spec.optimizer, spec.augment
    steps = [spec.epochs / 2, spec.epochs * 3 / 4] if optimizer.schedule == "step" else []
    return {
        "architecture": spec.architecture,
        "classes": list(classes),
        "recipe": Recipe.from_dict(spec.preprocess.model_dump(mode="json")).to_dict(),
        "epochs": spec.epochs,
        "batch": spec.batch_size,
        "seed": spec.seed,
        "start": {"none": "none", "pretrained": "timm"}.get(spec.start, "checkpoint"),
        "precision": spec.precision,
        "class_weights": "balanced" if spec.class_weights else "none",
        "label_smoothing": spec.label_smoothing,
        "stop_after": spec.patience or 0,
        "optimisation": {
            "optimiser": optimizer.name,
            "learning_rate": optimizer.learning_rate,
            "weight_decay": optimizer.weight_decay,
            "momentum": optimizer.momentum,
            "schedule": optimizer.schedule,
            "warm_up_epochs": optimizer.warmup_epochs,
            "step_epochs": steps,
            "clip_norm": optimizer.clip_norm or 0.0,
        },
        "augmentation": {
            "rotate_deg": augment.rotate_degrees,
            "translate": augment.translate,
            "scale": augment.scale,
            "shear_deg": augment.shear_degrees,
            "flip": augment.flip,
            "brightness": augment.brightness,
            "contrast": augment.contrast,
        },
    }
