"""CenterNet as `workers.detection.family.DetectorFamily` wants it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from workers.detection.family import Decoded, Losses, Maps
from workers.models.centernet.decoding import decode
from workers.models.centernet.losses import CenterNetLoss
from workers.models.centernet.network import CenterNet


@dataclass(frozen=True)
class CenterNetFamily:
    """Any convolutional network of timm is a backbone; ResNet-18 is the usual one."""

    name: str = "centernet"
    stride: int = 32

    def build(
        self,
        architecture: str,
        classes: int,
        channels: int,
        options: Mapping[str, Any],
        *,
        pretrained: bool = False,
    ) -> nn.Module:
        """See `DetectorFamily.build`; options: neck."""
        return CenterNet(architecture, classes, channels, pretrained=pretrained, **options)

    def criterion(
        self, classes: int, options: Mapping[str, Any]
    ) -> Callable[[Maps, Tensor], Losses]:
        """Options: radius, min_overlap, size_weight, offset_weight; see `CenterNetLoss`."""
        return CenterNetLoss(classes, **options)

    def decode(self, maps: Maps, limit: int, least_score: float) -> Decoded:
        """The highest peaks."""
        return decode(maps, limit).above(least_score)
