"""Building a timm network and loading weights into it, for every family that stands on one."""

import difflib
from collections.abc import Mapping

import safetensors.torch
import timm
from torch import Tensor, nn

from schemas.errors import BundleError


def build_network(
    architecture: str, num_classes: int, in_chans: int, *, pretrained: bool = False
) -> nn.Module:
    """Build a timm classifier of ``num_classes`` outputs.

    ``pretrained`` loads timm's weights, which it looks for in the cache of Hugging Face
    (``HF_HOME``) and then fetches. A first convolution for another number of channels and a head of
    another number of outputs are adapted as in `start_from`.

    Raises:
        BundleError: when timm knows no such architecture, or its weights can't be had.
    """
    plain, _, _ = architecture.partition(".")
    if not timm.is_model(plain):
        close = difflib.get_close_matches(plain, timm.list_models(), n=5, cutoff=0.3)
        raise BundleError(
            "timm knows no such architecture",
            got=architecture,
            remedy=f"names like it: {', '.join(close) or 'none'}",
        )
    try:
        network: nn.Module = timm.create_model(
            architecture, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans
        )
    except (OSError, RuntimeError) as error:
        remedy = (
            "copy the cache of Hugging Face (HF_HOME) from a machine with a network, or start from "
            "a safetensors file"
        )
        raise BundleError(
            "timm's weights can't be had" if pretrained else "timm can't build the network",
            where=architecture,
            got=" ".join(str(error).split())[:200],
            remedy=remedy if pretrained else "",
        ) from error
    return network


def load_weights(network: nn.Module, weights: bytes) -> None:
    """Load a bundle's own weights; every name and shape must fit.

    Raises:
        BundleError: when they do not fit, or the file is no safetensors file.
    """
    tensors = _tensors(weights)
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise BundleError("the weights do not fit the network", got=_short(error)) from None


def start_from(network: nn.Module, weights: bytes, *, new_head: bool = False) -> tuple[str, ...]:
    """Load a checkpoint as a start, adapting what may differ; return the names left as they were.

    ``weights`` is a safetensors file under timm's names, such as a bundle's. A head that is missing
    or of another number of outputs is left at its random start, and so is any with ``new_head``;
    of a VGG's fully connected layers that is the last. A first convolution for another number of
    channels is summed over its inputs (to one channel) or repeated and divided (to three), as is
    usual for grey images.

    Raises:
        BundleError: when anything else differs.
    """
    tensors = _tensors(weights)
    own = network.state_dict()
    heads = _names(network, "classifier")
    stems = _names(network, "first_conv")
    left: list[str] = []
    for name in list(tensors):
        fits = name in own and own[name].shape == tensors[name].shape
        layer = name.rpartition(".")[0]
        if layer in heads:
            if new_head or not fits:
                del tensors[name]
        elif not fits and layer in stems and name in own:
            tensors[name] = _adapt_channels(tensors[name], own[name].shape[1])
    for name in own:
        if name not in tensors and name.rpartition(".")[0] in heads:
            left.append(name)
            tensors[name] = own[name]
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise BundleError("the checkpoint does not fit", got=_short(error)) from None
    return tuple(left)


def timm_description(
    network: nn.Module, size_px: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, object]:
    """What timm's `config.json` says of weights, under timm's own names."""
    known: Mapping[str, object] = getattr(network, "pretrained_cfg", {})
    kept = {name: known[name] for name in ("first_conv", "classifier") if name in known}
    size = [len(mean), size_px, size_px]
    return kept | {"input_size": size, "mean": list(mean), "std": list(std), "crop_pct": 1.0}


def pretrained_statistics(architecture: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation by channel of the pixels timm's weights were trained on."""
    described = timm.get_pretrained_cfg(architecture)
    if described is None:
        raise BundleError("timm has no weights for this architecture", got=architecture)
    return [float(one) for one in described.mean], [float(one) for one in described.std]


def _short(error: Exception) -> str:
    _, _, listed = " ".join(str(error).split()).partition(": ")
    return listed[:300]


def _tensors(weights: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(weights)
    except (safetensors.SafetensorError, ValueError) as error:
        raise BundleError("the weights are no safetensors file", got=str(error)[:200]) from None


def _names(network: nn.Module, what: str) -> tuple[str, ...]:
    described: Mapping[str, object] = getattr(network, "pretrained_cfg", {})
    found = described.get(what, ())
    return (found,) if isinstance(found, str) else tuple(str(name) for name in found or ())  # type: ignore[attr-defined]


def _adapt_channels(weight_OIHW: Tensor, channels: int) -> Tensor:
    summed_O1HW = weight_OIHW.sum(dim=1, keepdim=True)
    return summed_O1HW.expand(-1, channels, -1, -1).contiguous() / channels
