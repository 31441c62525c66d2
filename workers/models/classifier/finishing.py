"""From a finished training's last checkpoint to the files of its bundle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
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
from workers.pixels.steps import Recipe
from workers.training.config import TrainConfig
from workers.training.data import read_in_order
from workers.training.examples import Examples

MOST_VALIDATION = 20_000
"""Validation images the bundle's figures rest on at most."""
MOST_BYTES = 2 * 2**30
"""What they may take in memory, decoded."""


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
    """Decode the validation part; images that can't be read are left out.

    Of more than `MOST_VALIDATION`, or than `MOST_BYTES` hold, images evenly spread over the part's
    rows are taken.

    Raises:
        RunError: when none can be read.
    """
    rows = examples.of_part("val")
    made = Recipe.from_dict(recipe)
    shape = (made.channels, made.size, made.size)
    most = min(MOST_VALIDATION, max(MOST_BYTES // prod(shape), 1))
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most, dtype=np.int64)]
    pixels_NCHW = np.empty((len(rows), *shape), np.uint8)
    usable: list[int] = []
    for position, image in read_in_order(rows, examples.reader(recipe), order=None):
        if not isinstance(image, RejectedImage):
            pixels_NCHW[len(usable)] = image
            usable.append(int(rows[position]))
    if not usable:
        raise RunError("No validation image can be read", got=f"{len(rows)} images")
    groups = examples.rows.column("group").to_pylist()
    return Validation(
        pixels_NCHW[: len(usable)],
        examples.targets(classes)[usable],
        [groups[row] for row in usable],
    )
