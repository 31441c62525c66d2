"""By which mean and standard deviation a training normalises its pixels."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from schemas.bundle import Preprocessing
from workers.models.network import pretrained_statistics
from workers.training.config import StartName
from workers.training.data import ImageCache
from workers.training.feeding import Statistics, for_channels, measure_pixels


class Trained(Protocol):
    """What a training says of its network's input."""

    @property
    def architecture(self) -> str:
        """A timm architecture."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The pixel recipe as JSON values."""

    @property
    def start(self) -> StartName:
        """Where first weights come from."""

    @property
    def in_chans(self) -> int:
        """Channels of the network's input."""


def preprocessing_of(
    config: Trained, cache: ImageCache, device: torch.device, start: Preprocessing | None
) -> Preprocessing:
    """Mean and standard deviation of the training pixels, or those the start weights know.

    ``cache`` holds this rank's training images; ``start`` is how the pixels were made that the
    start weights were trained with, where that is known.
    """
    known: Statistics
    if config.start == "timm":
        known = pretrained_statistics(config.architecture)
    elif start is not None:
        known = list(start.mean), list(start.std)
    else:
        known = measure_pixels(cache, device)
    mean, std = for_channels(known, config.in_chans)
    return Preprocessing(recipe=dict(config.recipe), mean=tuple(mean), std=tuple(std))
