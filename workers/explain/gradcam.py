"""Grad-CAM and Grad-CAM++: which places of a feature map speak for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017; Chattopadhay et al., "Grad-CAM++", WACV 2018.

Suffixes of arrays: N images, C channels, h and w of a feature map, K outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.errors import BundleError

Method = Literal["gradcam", "gradcam++"]

_EPSILON = 1e-6
"""Keeps the weights of Grad-CAM++ finite; they depend on it where gradients are tiny."""


@dataclass(frozen=True)
class HeatMaps:
    """Heat maps of a batch, and what the network said of it."""

    heat_Nhw: NDArray[np.float32]
    """At the resolution of the feature map, 0 or more, in no unit."""
    outputs_NK: NDArray[np.float32]
    """The network's raw outputs."""


class _Weigh(Protocol):
    def __call__(self, maps_NChw: Tensor, gradients_NChw: Tensor) -> Tensor: ...


def heat_maps(
    whole: nn.Module,
    layer: nn.Module,
    images_NCHW: Tensor,
    targets_N: Sequence[int],
    method: Method = "gradcam",
) -> HeatMaps:
    """Compute the heat map of one target class for each image.

    ``whole`` takes ``images_NCHW`` and returns (N, K) outputs; ``layer`` is the module of it whose
    output (N, C, h, w) is weighted. The gradient is that of the target's output with respect to
    the layer's, which is cut off from everything before it: so a frozen backbone makes no
    difference, and nothing is stored for a backward pass through it.

    Raises:
        ValueError: if the network is in training mode.
        BundleError: if the layer has no feature map.
    """
    if whole.training:
        raise ValueError("a network is explained in eval mode: call eval() first")
    watched = _Watched()
    handle = layer.register_forward_hook(watched)
    try:
        with torch.enable_grad():
            outputs_NK: Tensor = whole(images_NCHW)
    finally:
        handle.remove()
    maps_NChw = watched.maps()
    index_N = torch.as_tensor(list(targets_N), device=outputs_NK.device)
    scores_N = outputs_NK.gather(1, index_N[:, None])
    # The images of a batch do not touch each other in eval mode, so one sum serves them all.
    (gradients_NChw,) = torch.autograd.grad(scores_N.sum(), maps_NChw)
    with torch.no_grad():
        weights_NC = _WEIGHTS[method](maps_NChw, gradients_NChw)
        heat_Nhw = (weights_NC[:, :, None, None] * maps_NChw).sum(dim=1).clamp(min=0)
    return HeatMaps(heat_Nhw.float().cpu().numpy(), outputs_NK.detach().float().cpu().numpy())


def scaled(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch a heat map to 0-1 for showing it; a map without any heat stays 0."""
    risen = heat - heat.min()
    stretched: NDArray[np.float32] = risen / (1e-7 + risen.max())
    return stretched


class _Watched:
    """A forward hook that starts a graph at the layer's output."""

    def __init__(self) -> None:
        self._maps: list[Tensor] = []

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise BundleError(
                "The layer has no feature map to weigh",
                got=f"an output of {shape}",
                remedy="name a `layer` whose output is (images, channels, height, width)",
            )
        maps_NChw = output.detach().requires_grad_()
        self._maps.append(maps_NChw)
        # A copy, since an activation after the layer may work in place.
        return maps_NChw.clone()

    def maps(self) -> Tensor:
        """What the layer put out.

        Raises:
            BundleError: if it was not used exactly once.
        """
        if len(self._maps) != 1:
            raise BundleError(
                "The layer is not used once by an image",
                got=f"{len(self._maps)} times",
                remedy="name another `layer`",
            )
        return self._maps[0]


def _gradcam(maps_NChw: Tensor, gradients_NChw: Tensor) -> Tensor:
    return gradients_NChw.mean(dim=(2, 3))


def _gradcam_plus_plus(maps_NChw: Tensor, gradients_NChw: Tensor) -> Tensor:
    """Equation 19 of the paper, for a score that is the exponential of the network's output."""
    squared_NChw = gradients_NChw**2
    cubed_NChw = squared_NChw * gradients_NChw
    sums_NC11 = maps_NChw.sum(dim=(2, 3), keepdim=True)
    shares_NChw = squared_NChw / (2 * squared_NChw + sums_NC11 * cubed_NChw + _EPSILON)
    return (gradients_NChw.clamp(min=0) * shares_NChw).sum(dim=(2, 3))


_WEIGHTS: dict[str, _Weigh] = {"gradcam": _gradcam, "gradcam++": _gradcam_plus_plus}
