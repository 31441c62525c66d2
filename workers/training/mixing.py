"""Mixup: blending pairs of training images and their targets (Zhang et al. 2018)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mix:
    """How the images of one batch are blended."""

    share: float
    """Of each image's own; the rest is its partner's."""
    partners_N: Tensor
    """int64: which image of the batch each is blended with, each once."""


def draw_mix(count: int, alpha: float, generator: np.random.Generator) -> Mix:
    """Draw a batch's share from Beta(alpha, alpha), and partners from all permutations.

    An image may be its own partner, and an odd number of images has partners like any other.
    """
    share = float(generator.beta(alpha, alpha))
    return Mix(share, torch.from_numpy(generator.permutation(count)))


def blend(values_N: Tensor, partners_N: Tensor, share: Tensor) -> Tensor:
    """Blend each item of the first axis with its partner's, as float32; ``share`` is a scalar.

    Serves pixels (N, C, H, W) of 0 to 255 and targets (N, K), on whatever device they lie.
    """
    own_N = values_N.float()
    return share * own_N + (1 - share) * own_N[partners_N]
