"""From a finished training's checkpoint and images to what the bundles of all families need."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import RejectedImage
from workers.pixels.steps import Recipe
from workers.training.data import ReadImages, none_readable, read_in_order
from workers.training.examples import Examples

MOST_VALIDATION = 20_000
"""Validation images a bundle's figures rest on at most."""
MOST_BYTES = 2 * 2**30
"""What they may take in memory, decoded."""


def training_facts(progress: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Epochs, best epoch, history and settings, for the card and the configuration."""
    return {
        "epochs": progress["epochs_done"],
        "best_epoch": progress["best_epoch"] + 1,
        "history": progress["history"],
        "settings": dict(settings),
    }


def inner_state(best: bytes) -> dict[str, Tensor]:
    """The network's own state out of the safetensors of a `Normalised` network."""
    found = safetensors.torch.load(best)
    return {name.removeprefix("network."): tensor for name, tensor in found.items()}


def decode_validation(
    examples: Examples, recipe: Mapping[str, Any], read: ReadImages
) -> tuple[NDArray[np.uint8], list[int]]:
    """Decode the validation part: pixels (N, C, S, S), and the rows they are of.

    Images that can't be read are left out. Of more than `MOST_VALIDATION`, or than `MOST_BYTES`
    hold, images evenly spread over the part's rows are taken.

    Raises:
        RunError: when none can be read.
    """
    rows = examples.of_part("val")
    made = Recipe.from_dict(recipe)
    shape = (made.channels, made.size, made.size)
    most = min(MOST_VALIDATION, max(MOST_BYTES // prod(shape), 1))
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most, dtype=np.int64)]
    pixels_NCSS = np.empty((len(rows), *shape), np.uint8)
    usable: list[int] = []
    rejects: list[RejectedImage] = []
    for position, image in read_in_order(rows, read, order=None):
        if isinstance(image, RejectedImage):
            rejects.append(image)
        else:
            pixels_NCSS[len(usable)] = image
            usable.append(int(rows[position]))
    if not usable:
        raise none_readable(rejects)
    return pixels_NCSS[: len(usable)], usable
