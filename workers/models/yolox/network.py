"""YOLOX's network: CSPDarknet, a path aggregation neck, a head with two branches.

Suffixes: N images, C channels, K classes, S side of the input, H and W of a map.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.errors import BundleError
from workers.detection.family import Maps
from workers.models.yolox.darknet import CspDarknet, CspLayer, Size, conv, conv3

STRIDES = (8, 16, 32)

SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "yolox-nano": Size(depth=0.33, width=0.25, depthwise=True),
        "yolox-tiny": Size(depth=0.33, width=0.375),
        "yolox-s": Size(depth=0.33, width=0.5),
    }
)
"""The published sizes that fit the machines at hand."""

_PRIOR = 0.01
"""Probability of an object, and of each class, that every place begins with."""


class PathAggregation(nn.Module):
    """Mixes the maps of three strides, from coarse to fine and back (Liu et al. 2018)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        fine, middle, coarse = (size.channels(full) for full in (256, 512, 1024))
        count = size.bottlenecks(3)
        self.from_coarse = conv(coarse, middle)
        self.down_middle = CspLayer(2 * middle, middle, count, size, add=False)
        self.from_middle = conv(middle, fine)
        self.down_fine = CspLayer(2 * fine, fine, count, size, add=False)
        self.to_middle = conv3(fine, fine, size, stride=2)
        self.up_middle = CspLayer(2 * fine, middle, count, size, add=False)
        self.to_coarse = conv3(middle, middle, size, stride=2)
        self.up_coarse = CspLayer(2 * middle, coarse, count, size, add=False)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        """Maps at the same strides with the same channels."""
        from_coarse = self.from_coarse(coarse)
        mixed = self.down_middle(torch.cat([_twice(from_coarse), middle], dim=1))
        from_middle = self.from_middle(mixed)
        fine = self.down_fine(torch.cat([_twice(from_middle), fine], dim=1))
        middle = self.up_middle(torch.cat([self.to_middle(fine), from_middle], dim=1))
        coarse = self.up_coarse(torch.cat([self.to_coarse(middle), from_coarse], dim=1))
        return fine, middle, coarse


class Head(nn.Module):
    """Box, objectness and classes at every place of one map; objectness goes with the box."""

    def __init__(self, inputs: int, classes: int, size: Size) -> None:
        super().__init__()
        wide = size.channels(256)
        self.stem = conv(inputs, wide)
        self.class_branch = nn.Sequential(conv3(wide, wide, size), conv3(wide, wide, size))
        self.box_branch = nn.Sequential(conv3(wide, wide, size), conv3(wide, wide, size))
        self.box = nn.Conv2d(wide, 4, 1)
        self.objectness = nn.Conv2d(wide, 1, 1)
        self.classes = nn.Conv2d(wide, classes, 1)
        for layer in (self.objectness, self.classes):
            if layer.bias is not None:
                nn.init.constant_(layer.bias, math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, map_NCHW: Tensor) -> Tensor:
        """Raw (N, 5 + K, H, W): box, logit of objectness, logits of classes."""
        shared = self.stem(map_NCHW)
        boxes = self.box_branch(shared)
        return torch.cat(
            [self.box(boxes), self.objectness(boxes), self.classes(self.class_branch(shared))],
            dim=1,
        )


class Yolox(nn.Module):
    """One raw map (N, 5 + K, H, W) at each of the strides 8, 16 and 32.

    Input: normalised images (N, C, S, S), where S is a multiple of 32.

    Raises:
        BundleError: when there is no such size.
    """

    def __init__(self, architecture: str, classes: int, channels: int) -> None:
        super().__init__()
        if architecture not in SIZES:
            raise BundleError(
                "YOLOX has no such size", got=architecture, remedy=f"one of {', '.join(SIZES)}"
            )
        size = SIZES[architecture]
        self.backbone = CspDarknet(channels, size)
        self.neck = PathAggregation(size)
        self.heads = nn.ModuleList(
            Head(size.channels(full), classes, size) for full in (256, 512, 1024)
        )

    def forward(self, images_NCSS: Tensor) -> Maps:
        """Compute the three maps."""
        mixed = self.neck(*self.backbone(images_NCSS))
        return tuple(head(one) for head, one in zip(self.heads, mixed, strict=True))


def _twice(map_NCHW: Tensor) -> Tensor:
    return functional.interpolate(map_NCHW, scale_factor=2.0, mode="nearest")
