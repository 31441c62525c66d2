"""The batches of a classifier's training: order, augmentation, mixup, sizes."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from workers.training.augment import augment
from workers.training.config import TrainConfig
from workers.training.data import ImageCache, Indices, epoch_order
from workers.training.feeding import Share
from workers.training.loop import Batch, hash_seed
from workers.training.mixing import blend, draw_mix
from workers.training.sampling import balanced_order


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
