"""The batches of a classifier's training: order, augmentation, mixup, sizes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.errors import RunError
from workers.training import ranks
from workers.training.augment import augment
from workers.training.config import TrainConfig
from workers.training.context import TrainContext
from workers.training.data import ImageCache, Indices, epoch_order
from workers.training.loop import Batch, hash_seed
from workers.training.mixing import blend, draw_mix
from workers.training.sampling import balanced_order


@dataclass(frozen=True)
class Share:
    """One rank's share of an epoch."""

    rank: int
    batch: int
    """Images of its step."""
    steps: int
    """Steps of an epoch, equal on every rank."""


def share_of_epoch(config: TrainConfig, cache: ImageCache, context: TrainContext) -> Share:
    """How many images this rank takes in a step, and how many steps an epoch has.

    Every rank makes as many full batches as the one with the fewest images can; what is left over
    of its images waits for another epoch's order.

    Raises:
        RunError: when a batch would be of fewer than two images.
    """
    fewest = min(ranks.gather_counts(len(cache), torch.device(context.device)))
    batch = min(config.batch // context.world_size, fewest)
    if batch < 2:
        raise RunError(
            "too few training images for batch normalisation",
            got=f"{fewest} images on a worker, batch {config.batch} over {context.world_size}",
            remedy="train with fewer workers, a larger batch or more images",
        )
    return Share(context.rank, batch, fewest // batch)


def epoch_batches(
    config: TrainConfig, cache: ImageCache, targets: NDArray[np.int64], epoch: int, share: Share
) -> Iterator[Batch]:
    """Pixels and classes of each step; with mixup, shares of classes, partners and the share too.

    ``targets`` are by row. The same epoch gives the same batches whenever it is run.
    """
    own_N = targets[cache.rows]
    order = _order(config, own_N, epoch, share)
    generator = torch.Generator().manual_seed(hash_seed(config.seed, epoch, share.rank, 1))
    mixing = np.random.default_rng((config.seed, 3, epoch, share.rank))
    for step in range(share.steps):
        positions = order[step * share.batch : (step + 1) * share.batch]
        pixels_NCHW = torch.from_numpy(cache.images(positions))
        changed_NCHW = augment(pixels_NCHW, config.augmentation, generator)
        targets_N = torch.from_numpy(own_N[positions])
        if not config.augmentation.mixup:
            yield changed_NCHW, targets_N
            continue
        mix = draw_mix(len(positions), config.augmentation.mixup, mixing)
        own_share = torch.tensor(mix.share, dtype=torch.float32)
        one_hot_NK = torch.nn.functional.one_hot(targets_N, len(config.classes))
        soft_NK = blend(one_hot_NK, mix.partners_N, own_share)
        yield changed_NCHW, soft_NK, mix.partners_N, own_share


def _order(config: TrainConfig, own_N: NDArray[np.int64], epoch: int, share: Share) -> Indices:
    if config.balance == "sampler":
        count = share.batch * share.steps
        return balanced_order(own_N, count, epoch, share.rank, config.seed)
    return epoch_order(len(own_N), epoch, share.rank, config.seed)


def pinned(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches in pinned memory, from which a GPU copies while it computes."""
    return (tuple(part.pin_memory() for part in batch) for batch in batches)
