"""From a finished training's last checkpoint to the files of a detector's bundle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import safetensors.torch

from schemas.bundle import Preprocessing
from schemas.errors import RejectedImage, RunError
from workers.detection.bundling import DetectorFacts, Validation, make_bundle
from workers.detection.config import DetectorConfig
from workers.detection.examples import MarkedReader
from workers.pixels.steps import Recipe
from workers.training.data import read_in_order
from workers.training.examples import Examples

MOST_VALIDATION = 20_000
"""Validation images the bundle's figures rest on at most."""
MOST_BYTES = 2 * 2**30
"""What they may take in memory, decoded."""


def finish_bundle(
    checkpoint: tuple[bytes, bytes],
    preprocessing: Preprocessing,
    facts: DetectorFacts,
    config: DetectorConfig,
    examples: Examples,
) -> dict[str, bytes]:
    """The bundle of the best epoch; ``checkpoint`` is its weights and the progress as JSON.

    Raises:
        RunError: when no validation image can be read.
    """
    best, told = checkpoint
    progress: Mapping[str, Any] = json.loads(told)
    inner = {
        name.removeprefix("network."): tensor
        for name, tensor in safetensors.torch.load(best).items()
    }
    training = {
        "epochs": progress["epochs_done"],
        "best_epoch": progress["best_epoch"] + 1,
        "history": progress["history"],
        "settings": config.to_dict(),
    }
    return make_bundle(
        safetensors.torch.save(inner),
        preprocessing,
        replace(facts, training={**facts.training, **training}),
        config,
        read_validation(config, examples),
    )


def read_validation(config: DetectorConfig, examples: Examples) -> Validation:
    """Decode the validation part; images that can't be read are left out.

    Of more than `MOST_VALIDATION`, or than `MOST_BYTES` hold, images evenly spread over the part's
    rows are taken.

    Raises:
        RunError: when none can be read.
    """
    rows = examples.of_part("val")
    made = Recipe.from_dict(config.recipe)
    shape = (made.channels, made.size, made.size)
    most = min(MOST_VALIDATION, max(MOST_BYTES // prod(shape), 1))
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most, dtype=np.int64)]
    reader = MarkedReader(examples, config.recipe)
    pixels_NCSS = np.empty((len(rows), *shape), np.uint8)
    usable: list[int] = []
    for position, image in read_in_order(rows, reader, order=None):
        if not isinstance(image, RejectedImage):
            pixels_NCSS[len(usable)] = image
            usable.append(int(rows[position]))
    if not usable:
        raise RunError("No validation image can be read", got=f"{len(rows)} images")
    return Validation(
        pixels_NCSS[: len(usable)],
        [reader.original(row) for row in usable],
        [reader.geometry(row) for row in usable],
        sizes_of(examples, usable),
    )


def sizes_of(examples: Examples, rows: Sequence[int]) -> list[tuple[int, int] | None]:
    """Width and height of the originals, where they are catalogued."""
    widths = examples.rows["width"].to_pylist()
    heights = examples.rows["height"].to_pylist()
    return [
        None if widths[row] is None or heights[row] is None else (widths[row], heights[row])
        for row in rows
    ]
