"""YOLOX as `workers.detection.family.DetectorFamily` wants it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from schemas.errors import BundleError
from workers.detection.family import Decoded, Losses, Maps
from workers.models.yolox.decoding import decode
from workers.models.yolox.losses import YoloxLoss
from workers.models.yolox.network import STRIDES, Yolox


@dataclass(frozen=True)
class YoloxFamily:
    """Sizes: yolox-nano, yolox-tiny, yolox-s; the backbone is their own CSPDarknet."""

    name: str = "yolox"
    stride: int = STRIDES[-1]

    def build(
        self,
        architecture: str,
        classes: int,
        channels: int,
        options: Mapping[str, Any],
        *,
        pretrained: bool = False,
    ) -> nn.Module:
        """See `DetectorFamily.build`; timm has no weights for CSPDarknet in this form."""
        if pretrained:
            raise BundleError(
                "There are no pretrained weights for YOLOX",
                got=architecture,
                remedy="start from none, or from a bundle of the lake",
            )
        return Yolox(architecture, classes, channels, **options)

    def criterion(
        self, classes: int, options: Mapping[str, Any]
    ) -> Callable[[Maps, Tensor], Losses]:
        """Options: l1; see `YoloxLoss`."""
        return YoloxLoss(classes, **options)

    def decode(self, maps: Maps, limit: int, least_score: float) -> Decoded:
        """The most certain boxes that stay after suppression."""
        return decode(maps, limit, least_score)
