"""CenterNet's network: a timm backbone, deconvolutions up to a quarter of the input, three heads.

Suffixes: N images, C channels, K classes, H and W of the output, a quarter of the input's side.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from schemas.errors import BundleError
from workers.detection.family import Maps
from workers.models.network import build_network

STRIDE = 4
"""Input pixels a pixel of the output stands for."""

Neck = Literal["lateral", "plain"]
"""What the deconvolutions get: the backbone's last features alone, as in the paper, or at each step
also its earlier ones of that resolution. A small input needs these: at 128 px a ResNet-18 ends in
4 x 4 places, from which a plain neck hardly learns where a small lesion lies."""

WIDTHS: Mapping[Neck, tuple[int, ...]] = MappingProxyType(
    {"lateral": (256, 128, 64), "plain": (256, 256, 256)}
)
"""Channels of the deconvolutions to a stride of 16, 8 and 4."""

_STRIDES = (16, 8, STRIDE)
_LAST_STRIDES = (32, 16, 8)
_HEAD_CHANNELS = 64
_TRIAL_PX = 224
"""Some architectures take this side only."""
_PRIOR = 0.1
"""Probability of a centre that every place of the heat map begins with."""


class CenterNet(nn.Module):
    """Heat map, sizes and offsets of an image.

    Input: normalised images (N, C, S, S). Output: logits of the heat map (N, K, H, W); width and
    height (N, 2, H, W) and the offset of the centre from the corner of its place (N, 2, H, W), in
    pixels of the output.
    """

    def __init__(
        self,
        architecture: str,
        classes: int,
        channels: int,
        *,
        neck: Neck = "lateral",
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        # Without a classifier; its features are taken before they are pooled.
        self.backbone = build_network(architecture, 0, channels, pretrained=pretrained)
        if hasattr(self.backbone, "pre_logits"):
            self.backbone.pre_logits = nn.Identity()  # VGG's large layers, behind the features
        channels_last, beside = _features(self.backbone, channels, architecture)
        widths = WIDTHS[neck][-len(beside) :]
        self._beside = tuple(one.position for one in beside)
        self.neck = _Neck(
            channels_last, widths, [one.channels for one in beside] if neck == "lateral" else ()
        )
        # Most places hold no centre: without the prior their loss would drown all else at first.
        self.heat = _head(widths[-1], classes, bias=math.log(_PRIOR / (1 - _PRIOR)))
        self.size = _head(widths[-1], 2)
        self.offset = _head(widths[-1], 2)

    def forward(self, images_NCSS: Tensor) -> Maps:
        """Compute the three maps."""
        last_NCHW, every = _take_features(self.backbone, images_NCSS)
        features_NCHW = self.neck(last_NCHW, [every[position] for position in self._beside])
        return self.heat(features_NCHW), self.size(features_NCHW), self.offset(features_NCHW)


class _Neck(nn.Module):
    """Deconvolutions that double the resolution; features of the new resolution are added."""

    def __init__(self, channels: int, widths: Sequence[int], beside: Sequence[int]) -> None:
        """``beside`` are the channels of the features that are added, if any."""
        super().__init__()
        ins = [channels, *widths[:-1]]
        self.up = nn.ModuleList(_double(*one) for one in zip(ins, widths, strict=True))
        self.side = nn.ModuleList(_join(*one) for one in zip(beside, widths, strict=bool(beside)))

    def forward(self, features_NCHW: Tensor, beside: Sequence[Tensor]) -> Tensor:
        """Features at a quarter of the input; ``beside`` are those at each step's resolution."""
        for step, up in enumerate(self.up):
            features_NCHW = up(features_NCHW)
            if len(self.side):
                features_NCHW = features_NCHW + self.side[step](beside[step])
        return features_NCHW


def _double(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _join(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))


class _Beside(NamedTuple):
    """Earlier features of a backbone: their place in what it answers, and their channels."""

    position: int
    channels: int


def _take_features(backbone: nn.Module, images_NCSS: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The last features, and those of every resolution."""
    last: Tensor
    every: list[Tensor]
    last, every = backbone.forward_intermediates(images_NCSS)  # type: ignore[operator]
    return last, every


def _features(
    backbone: nn.Module, channels: int, architecture: str
) -> tuple[int, tuple[_Beside, ...]]:
    """Channels of a backbone's last features, and the earlier ones up to `STRIDE`, coarse to fine.

    Found by trying.
    """
    backbone.eval()
    with torch.inference_mode():
        last, every = _take_features(backbone, torch.zeros(1, channels, _TRIAL_PX, _TRIAL_PX))
    backbone.train()
    if not isinstance(last, Tensor) or last.ndim != 4:
        raise _unfit(architecture, "none")
    stride = _TRIAL_PX // last.shape[-1]
    if stride not in _LAST_STRIDES:
        raise _unfit(architecture, f"at a stride of {stride}")
    found = {
        _TRIAL_PX // one.shape[-1]: _Beside(position, one.shape[1])
        for position, one in enumerate(every)
    }
    wanted = [step for step in _STRIDES if step < stride]
    if not found.keys() >= set(wanted):
        raise _unfit(architecture, f"at strides of {', '.join(map(str, found))} alone")
    return last.shape[1], tuple(found[step] for step in wanted)


def _unfit(architecture: str, maps: str) -> BundleError:
    return BundleError(
        "CenterNet needs a backbone whose features are maps, down to a stride of 8, 16 or 32",
        got=f"{architecture}: {maps}",
        remedy="take a convolutional one, such as resnet18",
    )


def _head(channels: int, outputs: int, *, bias: float = 0.0) -> nn.Sequential:
    last = nn.Conv2d(_HEAD_CHANNELS, outputs, 1)
    if last.bias is not None:
        nn.init.constant_(last.bias, bias)
    return nn.Sequential(
        nn.Conv2d(channels, _HEAD_CHANNELS, 3, padding=1), nn.ReLU(inplace=True), last
    )
