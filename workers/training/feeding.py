"""What a training of any family does with its images: caches, shares of ranks, pixel statistics."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from schemas.bundle import Preprocessing
from schemas.errors import RunError
from workers.training import ranks
from workers.training.checkpoint import Progress
from workers.training.context import TrainContext
from workers.training.data import ImageCache, ReadImages, Reject, none_readable, own_rows
from workers.training.examples import Examples
from workers.training.loop import Batch
from workers.training.memory import image_bytes

CACHE_SHARE_VAL = 0.2
"""Of a rank's memory for decoded images, what validation images may take."""
MOST_DECODE_THREADS = 8

Statistics = tuple[list[float], list[float]]
"""Mean and standard deviation of pixels by channel, scaled to 0-1."""


@dataclass(frozen=True)
class Origin:
    """What a training starts from."""

    weights: bytes | None = None
    """A safetensors file."""
    pixels: Preprocessing | None = None
    """How the pixels were made that the weights were trained with, where they are a bundle's."""


@dataclass(frozen=True)
class Fitted:
    """What a training came to; complete on the first rank."""

    progress: Progress
    preprocessing: Preprocessing
    rejects: tuple[Reject, ...]
    """This rank's rows that could not be read."""


@dataclass(frozen=True)
class Share:
    """One rank's share of an epoch."""

    rank: int
    batch: int
    """Images of its step."""
    steps: int
    """Steps of an epoch, equal on every rank."""


@dataclass(frozen=True)
class Caches:
    """This rank's images."""

    train: ImageCache
    val: ImageCache


def open_caches(
    examples: Examples, read: ReadImages, context: TrainContext, *, cache_bytes: int, seed: int
) -> Caches:
    """Read this rank's images of parts train and val.

    ``cache_bytes`` bounds what stays in memory, and so does half of the memory that is left,
    shared by all ranks.

    Raises:
        RunError: when no validation image can be read.
    """
    room = image_bytes(cache_bytes, context.world_size)
    val_room = int(room * CACHE_SHARE_VAL)

    def cache(part: str, max_bytes: int) -> ImageCache:
        mine = own_rows(examples.of_part(part), context.rank, context.world_size, seed)
        return ImageCache(mine, read, max_bytes=max_bytes, order=examples.cheapest_order(mine))

    caches = Caches(cache("train", room - val_room), cache("val", val_room))
    if not sum(ranks.gather_counts(len(caches.val), torch.device(context.device))):
        mine = [one.reason for one in caches.val.rejects]
        raise none_readable([one for rank in ranks.gather_objects(mine) for one in rank])
    return caches


def decode_threads(device: torch.device) -> int:
    """A worker on a CPU has that one CPU; one on a GPU has its share of the machine's."""
    if device.type == "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) // max(torch.cuda.device_count(), 1)
    return min(max(cores, 1), MOST_DECODE_THREADS)


def share_of_epoch(batch: int, cache: ImageCache, context: TrainContext) -> Share:
    """How many images this rank takes in a step, and how many steps an epoch has.

    ``batch`` is that of all ranks together. Every rank makes as many full batches as the one with
    the fewest images can; what is left over of its images waits for another epoch's order.

    Raises:
        RunError: when a batch would be of fewer than two images.
    """
    fewest = min(ranks.gather_counts(len(cache), torch.device(context.device)))
    own = min(batch // context.world_size, fewest)
    if own < 2:
        raise RunError(
            "too few training images for batch normalisation",
            got=f"{fewest} images on a worker, batch {batch} over {context.world_size}",
            remedy="train with fewer workers, a larger batch or more images",
        )
    return Share(context.rank, own, fewest // own)


def pinned(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches in pinned memory, from which a GPU copies while it computes."""
    return (tuple(part.pin_memory() for part in batch) for batch in batches)


def measure_pixels(cache: ImageCache, device: torch.device) -> Statistics:
    """Statistics of the training pixels of all ranks."""
    counts_C256 = ranks.add_up(cache.levels(), device)
    shares_C256 = counts_C256 / counts_C256.sum(axis=1, keepdims=True)
    levels = np.arange(256) / 255
    mean_C = shares_C256 @ levels
    variance_C = np.maximum(shares_C256 @ levels**2 - mean_C**2, 1e-4)
    mean = [round(float(value), 4) for value in mean_C]
    std = [round(float(value), 4) for value in np.sqrt(variance_C)]
    return mean, std


def for_channels(statistics: Statistics, channels: int) -> Statistics:
    """Statistics for a number of channels: the mean of those known, where it is another."""
    mean, std = statistics
    if len(mean) == channels:
        return mean, std
    return [float(np.mean(mean))] * channels, [float(np.mean(std))] * channels
