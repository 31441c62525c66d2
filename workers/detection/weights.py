"""Weights a detector starts from: another detector, or a backbone trained on something else."""

from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from schemas.errors import BundleError
from workers.detection.config import DetectorConfig
from workers.detection.families import family_of
from workers.models.network import start_from
from workers.training.loop import hash_seed

_BACKBONE, _NECK = "backbone.", "neck."
_BODY = (_BACKBONE, _NECK)
"""What must fit; heads are of the classes, and may be others."""


def build_detector(config: DetectorConfig, start: bytes | None = None) -> nn.Module:
    """The network of a training, with the weights it starts from.

    ``start`` is a safetensors file of a detector of this family and architecture, or of a network
    of timm that is the backbone, such as a classifier's or one trained without labels.

    Raises:
        BundleError: when the start weights do not fit or can't be had.
    """
    torch.manual_seed(hash_seed(config.seed))
    network = family_of(config.family).build(
        config.architecture,
        len(config.classes),
        config.in_chans,
        config.network,
        pretrained=config.start == "timm",
    )
    if start is not None:
        take_weights(network, start)
    return network


def take_weights(network: nn.Module, weights: bytes) -> tuple[str, ...]:
    """Load start weights into a detector; return the names that keep their random start.

    Raises:
        BundleError: when backbone or neck do not fit.
    """
    try:
        tensors = safetensors.torch.load(weights)
    except (safetensors.SafetensorError, ValueError) as error:
        raise BundleError("the weights are no safetensors file", got=type(error).__name__) from None
    if any(name.startswith(_NECK) for name in tensors):
        return _take_detector(network, tensors)
    backbone = network.get_submodule("backbone")
    # A VGG's large layers lie behind its features, and a detector's backbone has none.
    features = {name: one for name, one in tensors.items() if not name.startswith("pre_logits.")}
    start_from(backbone, safetensors.torch.save(features), new_head=True)
    known = {f"{_BACKBONE}{name}" for name in backbone.state_dict()}
    return tuple(name for name in network.state_dict() if name not in known)


def _take_detector(network: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    own = network.state_dict()
    fits = {
        name: tensor
        for name, tensor in tensors.items()
        if name in own and own[name].shape == tensor.shape
    }
    left = [name for name in own if name not in fits]
    wrong = [name for name in (*left, *tensors) if name not in fits and name.startswith(_BODY)]
    if wrong:
        raise BundleError("the checkpoint does not fit", got=f"{wrong[0]} and {len(wrong)} in all")
    network.load_state_dict({**own, **fits}, strict=True)
    return tuple(left)
