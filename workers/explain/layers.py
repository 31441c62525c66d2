"""Finding the last feature map of a timm classifier: what its global pooling averages."""

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from schemas.errors import BundleError

_POOLING = "global_pool"
"""What timm calls the module, whichever network it stands in."""


def find_layer(network: nn.Module, images_NCHW: Tensor, stated: str | None = None) -> str:
    """Return the name of the module whose output is a classifier's last feature map.

    That is the module that puts out what the global pooling takes in, found by one forward pass
    of ``images_NCHW``; where several hand on the same tensor, the outermost. A VGG halves its last
    map by max pooling and flattens the rest by its first fully connected layer, so there it is the
    activation before that pooling, as in the paper. ``stated`` is only looked up.

    Raises:
        BundleError: if there is no such module, or no feature map.
    """
    modules = dict(network.named_modules())
    layout = getattr(network, "output_fmt", "NCHW")
    if str(getattr(layout, "value", layout)) != "NCHW":
        raise BundleError(
            "Heat maps need a network of feature maps",
            where=type(network).__name__,
            got=f"features laid out as {layout}",
            remedy="explain a convolutional network",
        )
    if stated is not None:
        return _checked(stated, modules)
    features = modules.get("features")
    if isinstance(features, nn.Sequential) and isinstance(features[-1], nn.MaxPool2d):
        return f"features.{len(features) - 2}"
    pools = [name for name in modules if name.rpartition(".")[2] == _POOLING]
    if not pools:
        raise _no_map(network, f"no module {_POOLING}")
    return _source_of(network, modules, pools[-1], images_NCHW)


def _source_of(
    network: nn.Module, modules: dict[str, nn.Module], pool: str, images_NCHW: Tensor
) -> str:
    """The module that finishes last of those that put out what the pooling takes in."""
    put_out: list[tuple[str, Any]] = []
    taken: list[Any] = []

    def note_output(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not taken:
                put_out.append((name, output))

        return hook

    def note_input(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        taken.append(inputs[0])

    handles = [one.register_forward_hook(note_output(name)) for name, one in modules.items()]
    handles.append(modules[pool].register_forward_pre_hook(note_input))
    try:
        with torch.no_grad():
            network(images_NCHW)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, output in put_out if taken and output is taken[0]]
    if not names or taken[0].ndim != 4:
        raise _no_map(network, f"nothing that {pool} takes in")
    return names[-1]


def _checked(stated: str, modules: dict[str, nn.Module]) -> str:
    if stated not in modules or not stated:
        close = difflib.get_close_matches(stated, [name for name in modules if name], n=5, cutoff=0)
        raise BundleError(
            "The network has no such module",
            got=stated,
            remedy=f"names like it: {', '.join(close)}",
        )
    return stated


def _no_map(network: nn.Module, got: str) -> BundleError:
    return BundleError(
        "The network has no last feature map that could be found",
        where=type(network).__name__,
        got=got,
        remedy="name a `layer` whose output is (images, channels, height, width)",
    )
