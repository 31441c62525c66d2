"""CenterNet's network: a timm backbone, deconvolutions up to a quarter of the input, three heads.

Suffixes: N images, C channels, K classes, H and W of the output, a quarter of the input's side.
"""

import math

import torch
from torch import Tensor, nn

from schemas.errors import BundleError
from workers.detection.family import Maps
from workers.models.network import build_network

STRIDE = 4
"""Input pixels a pixel of the output stands for."""

NECK = {32: (256, 256, 256), 16: (256, 256), 8: (256,)}
"""Channels of the deconvolutions by the backbone's stride; each doubles the resolution."""

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
        self, architecture: str, classes: int, channels: int, *, pretrained: bool = False
    ) -> None:
        super().__init__()
        # Without a classifier; its features are taken before they are pooled.
        self.backbone = build_network(architecture, 0, channels, pretrained=pretrained)
        if hasattr(self.backbone, "pre_logits"):
            self.backbone.pre_logits = nn.Identity()  # VGG's large layers, behind the features
        features, stride = _features(self.backbone, channels, architecture)
        widths = NECK[stride]
        self.neck = _neck(features, widths)
        # Most places hold no centre: without the prior their loss would drown all else at first.
        self.heat = _head(widths[-1], classes, bias=math.log(_PRIOR / (1 - _PRIOR)))
        self.size = _head(widths[-1], 2)
        self.offset = _head(widths[-1], 2)

    def forward(self, images_NCSS: Tensor) -> Maps:
        """Compute the three maps."""
        features_NCHW = self.neck(_take_features(self.backbone, images_NCSS))
        return self.heat(features_NCHW), self.size(features_NCHW), self.offset(features_NCHW)


def _take_features(backbone: nn.Module, images_NCSS: Tensor) -> Tensor:
    features: Tensor = backbone.forward_features(images_NCSS)  # type: ignore[operator]
    return features


def _features(backbone: nn.Module, channels: int, architecture: str) -> tuple[int, int]:
    """Channels and stride of a backbone's features, found by trying."""
    backbone.eval()
    with torch.inference_mode():
        features = _take_features(backbone, torch.zeros(1, channels, _TRIAL_PX, _TRIAL_PX))
    backbone.train()
    stride = _TRIAL_PX // features.shape[-1] if features.ndim == 4 else 0
    if stride not in NECK:
        raise BundleError(
            "CenterNet needs a backbone whose features are a map, at a stride of 8, 16 or 32",
            got=f"{architecture}: {tuple(features.shape[1:])} of {_TRIAL_PX} px",
            remedy="take a convolutional one, such as resnet18",
        )
    return features.shape[1], stride


def _neck(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [
            nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    return nn.Sequential(*layers)


def _head(channels: int, outputs: int, *, bias: float = 0.0) -> nn.Sequential:
    last = nn.Conv2d(_HEAD_CHANNELS, outputs, 1)
    if last.bias is not None:
        nn.init.constant_(last.bias, bias)
    return nn.Sequential(
        nn.Conv2d(channels, _HEAD_CHANNELS, 3, padding=1), nn.ReLU(inplace=True), last
    )
