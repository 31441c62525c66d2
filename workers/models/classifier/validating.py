"""What a network in training makes of the validation part."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workers.metrics.scores import macro_auc
from workers.scoring.cuda_forward import full_float32
from workers.scoring.forward import Batched, OutOfDeviceMemory, Outputs, Pixels
from workers.training import ranks
from workers.training.data import ImageCache

LEAST_LIKELIHOOD = 1e-12
"""Probabilities are held above it before a logarithm is taken."""


@dataclass(frozen=True)
class ValidationPart:
    """This rank's validation images."""

    cache: ImageCache
    targets: NDArray[np.int64]
    """By row, of all parts and ranks."""
    classes: int
    batch: int
    """Images of one pass at most; halved where a GPU has no room for them."""


def validate(network: nn.Module, part: ValidationPart, device: torch.device) -> Mapping[str, float]:
    """AUC, accuracy and cross-entropy over the validation images of all ranks.

    ``network`` ends with its head. The AUC of two classes is that of the second. It is left out
    where it is undefined: where the part lacks a class, or outputs are no numbers.
    """
    logits_NC = torch.from_numpy(predict(network, part, device)).double()
    scores_NC = logits_NC.softmax(dim=1).numpy()
    own_N1 = part.targets[part.cache.rows].astype(np.float64)[:, None]
    gathered = ranks.gather_rows(np.concatenate([own_N1, scores_NC], axis=1), device)
    actual_N, all_NC = gathered[:, 0].astype(np.int64), gathered[:, 1:]
    likelihood_N = all_NC[np.arange(len(actual_N)), actual_N]
    figures = {
        "accuracy": float((all_NC.argmax(axis=1) == actual_N).mean()),
        "val_loss": float(-np.log(np.maximum(likelihood_N, LEAST_LIKELIHOOD)).mean()),
    }
    auc = macro_auc(actual_N, all_NC) if np.isfinite(all_NC).all() else np.nan
    return figures if np.isnan(auc) else {"auc": auc, **figures}


def predict(network: nn.Module, part: ValidationPart, device: torch.device) -> NDArray[np.float32]:
    """Outputs of the head for every image of the part, float32 (N, classes), on the CPU."""
    count = len(part.cache)
    if not count:
        return np.zeros((0, part.classes), np.float32)
    batched = Batched(lambda size: _Pass(network, device, size), min(part.batch, count))
    at_once = batched.batch
    starts = range(0, count, at_once)
    positions = [np.arange(start, min(start + at_once, count)) for start in starts]
    return np.concatenate([batched.outputs(part.cache.images(one)) for one in positions])


@dataclass
class _Pass:
    """A forward pass of the network as it is, in full float32."""

    network: nn.Module
    device: torch.device
    batch: int

    def __call__(self, pixels_BCHW: Pixels) -> Outputs:
        pixels = torch.from_numpy(pixels_BCHW)
        try:
            with full_float32():
                found = self.network(pixels.to(self.device)).float().cpu()
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfDeviceMemory from error
        outputs: Outputs = found.numpy()
        return outputs
