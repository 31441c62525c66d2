"""CSPDarknet, the backbone of YOLOX, and the blocks that its neck is made of as well.

Suffixes: N images, C channels, H and W of a map.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """How deep and wide a YOLOX is."""

    depth: float
    """Multiplies the number of bottlenecks."""
    width: float
    """Multiplies the channels."""
    depthwise: bool = False
    """3 x 3 convolutions are split into a depthwise and a pointwise one."""

    def channels(self, full: int) -> int:
        """Channels where the largest network has ``full``."""
        return int(full * self.width)

    def bottlenecks(self, full: int) -> int:
        """Bottlenecks where the largest network has ``full``."""
        return max(round(full * self.depth), 1)


def conv(inputs: int, outputs: int, side: int = 1, stride: int = 1, groups: int = 1) -> nn.Module:
    """Convolution, batch norm, SiLU."""
    return nn.Sequential(
        nn.Conv2d(
            inputs, outputs, side, stride=stride, padding=side // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
        nn.SiLU(inplace=True),
    )


def conv3(inputs: int, outputs: int, size: Size, stride: int = 1) -> nn.Module:
    """A 3 x 3 convolution as the size wants it."""
    if not size.depthwise:
        return conv(inputs, outputs, 3, stride)
    return nn.Sequential(conv(inputs, inputs, 3, stride, groups=inputs), conv(inputs, outputs))


class Bottleneck(nn.Module):
    """1 x 1, then 3 x 3, added to the input where asked."""

    def __init__(self, channels: int, size: Size, *, add: bool) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = conv3(channels, channels, size)
        self.add = add

    def forward(self, map_NCHW: Tensor) -> Tensor:
        """The same shape."""
        found: Tensor = self.second(self.first(map_NCHW))
        return found + map_NCHW if self.add else found


class CspLayer(nn.Module):
    """Bottlenecks on one half of the channels, beside the other half (Wang et al. 2020)."""

    def __init__(
        self, inputs: int, outputs: int, bottlenecks: int, size: Size, *, add: bool = True
    ) -> None:
        super().__init__()
        half = outputs // 2
        self.main = conv(inputs, half)
        self.side = conv(inputs, half)
        self.bottlenecks = nn.Sequential(
            *(Bottleneck(half, size, add=add) for _ in range(bottlenecks))
        )
        self.merge = conv(2 * half, outputs)

    def forward(self, map_NCHW: Tensor) -> Tensor:
        """From ``inputs`` to ``outputs`` channels."""
        worked = self.bottlenecks(self.main(map_NCHW))
        merged: Tensor = self.merge(torch.cat([worked, self.side(map_NCHW)], dim=1))
        return merged


class Focus(nn.Module):
    """Each 2 x 2 pixels become one with four times the channels, then a 3 x 3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv(4 * inputs, outputs, 3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Half the side."""
        corners = [images_NCHW[..., y::2, x::2] for x in (0, 1) for y in (0, 1)]
        found: Tensor = self.conv(torch.cat(corners, dim=1))
        return found


class PyramidPooling(nn.Module):
    """The map beside its maxima over windows of three sizes (SPP)."""

    def __init__(self, inputs: int, outputs: int, windows: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        half = inputs // 2
        self.reduce = conv(inputs, half)
        self.pools = nn.ModuleList(
            nn.MaxPool2d(window, stride=1, padding=window // 2) for window in windows
        )
        self.merge = conv(half * (len(windows) + 1), outputs)

    def forward(self, map_NCHW: Tensor) -> Tensor:
        """The same side."""
        reduced = self.reduce(map_NCHW)
        merged: Tensor = self.merge(
            torch.cat([reduced, *(pool(reduced) for pool in self.pools)], dim=1)
        )
        return merged


class CspDarknet(nn.Module):
    """Maps at strides 8, 16 and 32 of images (N, C, H, W)."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        wide = [size.channels(full) for full in (64, 128, 256, 512, 1024)]
        self.stem = Focus(channels, wide[0])
        self.stages = nn.ModuleList()
        for before, after, full in zip(wide[:-1], wide[1:], (3, 9, 9, 3), strict=True):
            last = after == wide[-1]
            pooled = [PyramidPooling(after, after)] if last else []
            self.stages.append(
                nn.Sequential(
                    conv3(before, after, size, stride=2),
                    *pooled,
                    CspLayer(after, after, size.bottlenecks(full), size, add=not last),
                )
            )

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The maps of the last three stages."""
        found = [self.stem(images_NCHW)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[-3], found[-2], found[-1]
