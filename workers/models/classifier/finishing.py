"""From a finished training's last checkpoint to the files of its bundle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import safetensors.torch

from schemas.bundle import Preprocessing
from schemas.errors import RejectedImage, RunError
from workers.models.classifier.bundling import (
    BundleFacts,
    Validation,
    inner_state,
    make_bundle,
)
from workers.training.config import TrainConfig
from workers.training.data import READ_ROWS, Image
from workers.training.examples import Examples

MOST_VALIDATION = 20_000
"""Validation images the bundle's figures rest on at most."""


def finish_bundle(
    checkpoint: tuple[bytes, bytes],
    preprocessing: Preprocessing,
    facts: BundleFacts,
    config: TrainConfig,
    examples: Examples,
) -> dict[str, bytes]:
    """The bundle of the best epoch; ``checkpoint`` is its weights and the progress as JSON."""
    best, told = checkpoint
    progress: Mapping[str, Any] = json.loads(told)
    weights = safetensors.torch.save(inner_state(safetensors.torch.load(best)))
    training = {
        "epochs": progress["epochs_done"],
        "best_epoch": progress["best_epoch"] + 1,
        "history": progress["history"],
        "settings": config.to_dict(),
    }
    whole = replace(
        facts,
        head=config.head,
        calibrate=config.calibrate,
        training={**facts.training, **training},
    )
    return make_bundle(
        weights, preprocessing, whole, read_validation(config.recipe, config.classes, examples)
    )


def read_validation(
    recipe: Mapping[str, Any], classes: Sequence[str], examples: Examples
) -> Validation:
    """Decode the validation part; images that can't be read are left out."""
    read = examples.reader(recipe)
    rows = examples.of_part("val")[:MOST_VALIDATION]
    targets = examples.targets(classes)
    groups = examples.rows.column("group").to_pylist()
    images: list[Image] = []
    usable: list[int] = []
    for start in range(0, len(rows), READ_ROWS):
        part = rows[start : start + READ_ROWS]
        for row, image in zip(part.tolist(), read(part), strict=True):
            if not isinstance(image, RejectedImage):
                images.append(image)
                usable.append(row)
    if not images:
        raise RunError("no validation image can be read", got=f"{len(rows)} images")
    kept = np.asarray(usable, dtype=np.int64)
    return Validation(np.stack(images), targets[kept], [groups[row] for row in usable])
