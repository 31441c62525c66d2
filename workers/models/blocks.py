"""The five blocks of a network and its head, and how many of them are trained.

B1 is the block at the stem, B5 the one at the head. In a convolutional network a block is what
works at one resolution: the convolutions between two poolings of a VGG; the stem and the four
stages of a ResNet; the stem and the four dense blocks of a DenseNet, each with the transition that
leads to it. Networks that keep one resolution are cut into five runs of layers.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from timm.models import group_parameters
from torch import Tensor, nn

from schemas.errors import BundleError
from workers.training.config import EVERY_BLOCK

BLOCKS = 5
HEAD = 0

_Runs = dict[str, int]
"""By module: 0 at the stem and up from there, `_AFTER` in the head."""
_AFTER = -1


def find_parts(network: nn.Module) -> dict[str, int]:
    """Find the head and the blocks of a timm network.

    Returns, for the name of each module with parameters or buffers of its own, `HEAD`, or 1 for the
    last block (B5) and so on to 5 for the first (B1): the least depth that trains it.

    Blocks end where timm taps features of another resolution (``feature_info``); where there are
    fewer than five such taps, timm's layers (``group_matcher``) are cut into five runs. The head is
    what comes after: all fully connected layers. A network of fewer than five layers has fewer
    blocks.

    Raises:
        BundleError: when timm describes no layers of the network.
    """
    layers = _layers(network)
    runs = _tapped(network, layers) or _cut(layers)
    last = max(runs.values())
    return {
        name: HEAD if run == _AFTER else min(last - run + 1, BLOCKS) for name, run in runs.items()
    }


def depth_setter(network: nn.Module, depths: Sequence[int]) -> Callable[[int], None]:
    """What freezes all of a timm network but its head and so many blocks.

    A frozen module's parameters need no gradient, and its batch norms neither follow the batches
    nor normalise by them: they are put into evaluation mode, out of which each call of `train`
    takes them, so that the depth must be set again after it. ``depths`` are all that will be
    asked for; `EVERY_BLOCK` freezes nothing.

    Raises:
        BundleError: when the network has fewer blocks than a depth, or none that timm describes.
    """
    parts: Mapping[str, int] = {}
    if any(depth != EVERY_BLOCK for depth in depths):
        parts = find_parts(network)
    blocks = max(parts.values(), default=0)
    if max(depths) > blocks:
        raise BundleError(
            "the network has fewer blocks than are to be trained",
            where=type(network).__name__,
            got=f"unfrozen {max(depths)} of {blocks} blocks",
            remedy=f"give a depth of 0 (the head alone) to {blocks}, or all",
        )

    # What a network itself holds fixed, such as some tables of positions, stays so at every depth.
    learned = {name for name, one in network.named_parameters() if one.requires_grad}

    def set_depth(depth: int) -> None:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in learned)
        for name, part in parts.items():
            if depth != EVERY_BLOCK and part > depth:
                _freeze(network.get_submodule(name))

    return set_depth


def _freeze(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad_(False)
    # Dropout and stochastic depth stay as they are: they are no state of the block.
    if isinstance(getattr(module, "running_mean", None), Tensor):
        module.eval()


def _layers(network: nn.Module) -> dict[str, int]:
    """Timm's layers by module, counted from the stem; the largest number is the head's."""
    try:
        matcher = network.group_matcher(coarse=True)  # type: ignore[operator]
    # Some of timm's networks have no matcher, or only a fine one.
    except (AttributeError, AssertionError):
        raise BundleError(
            "timm describes no layers of this network, so none of it can be frozen",
            where=type(network).__name__,
            remedy="train all of it (unfrozen: all)",
        ) from None
    known: Mapping[str, int] = group_parameters(network, matcher, reverse=True)
    found: dict[str, int] = {}
    layer = 0
    for name, module in network.named_modules():
        own = [f"{name}.{one}".lstrip(".") for one, _ in module.named_parameters(recurse=False)]
        if own or any(True for _ in module.named_buffers(recurse=False)):
            # A norm without parameters belongs to the layer before it.
            layer = next((known[one] for one in own if one in known), layer)
            found[name] = layer
    return found


def _tapped(network: nn.Module, layers: Mapping[str, int]) -> _Runs | None:
    """Runs of modules that end at timm's taps; None where these make fewer than five."""
    place = {name: number for number, (name, _) in enumerate(network.named_modules())}
    taps = getattr(network, "feature_info", ())
    last_taps: dict[int, str] = {tap["reduction"]: tap["module"] for tap in taps}
    if not all(tap in place for tap in last_taps.values()):
        return None
    ends = [_end(tap, place) for tap in last_taps.values()]
    head = max(layers.values())
    runs: _Runs = {}
    for name, layer in layers.items():
        run = bisect_left(ends, place[name])
        if run == len(ends):
            run = _AFTER if layer == head else len(ends) - 1
        runs[name] = run
    # A tap may end nothing: that after the last pooling of a VGG.
    used = sorted(set(runs.values()) - {_AFTER})
    if len(used) < BLOCKS:
        return None
    return {name: _AFTER if run == _AFTER else used.index(run) for name, run in runs.items()}


def _end(tap: str, place: Mapping[str, int]) -> int:
    """The place of the last module within the tapped one."""
    return max(at for name, at in place.items() if name == tap or name.startswith(f"{tap}."))


def _cut(layers: Mapping[str, int]) -> _Runs:
    """Timm's layers but for the head, in five runs as equal as can be."""
    bodies = sorted(set(layers.values()))[:-1]
    parts = np.array_split(bodies, min(BLOCKS, len(bodies)))
    run = {int(layer): number for number, part in enumerate(parts) for layer in part}
    return {name: run.get(layer, _AFTER) for name, layer in layers.items()}
