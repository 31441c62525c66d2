"""SimSiam's network, its loss, and the figure that shows a collapse.

Suffixes: N images, C channels, H and W of a view, D numbers of an embedding.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.models.network import build_network

EMBEDDING = 2048
COLLAPSED = 0.5
"""Spread below which a network counts as collapsed: half of what it is without a collapse."""
_BOTTLENECK = 512


class Sides(NamedTuple):
    """What the network makes of one view of each image."""

    embeddings_ND: Tensor
    """Of the projector: what the other side predicts; no gradient flows through it."""
    predictions_ND: Tensor
    """Of the predictor: what is compared with the other side's embedding."""


class SimSiam(nn.Module):
    """A timm backbone, pooled; a projector of three layers; a predictor with a bottleneck."""

    def __init__(self, architecture: str, channels: int, *, pretrained: bool = False) -> None:
        super().__init__()
        self.backbone = build_network(architecture, 0, channels, pretrained=pretrained)
        features = _count_features(self.backbone, channels)
        self.projector = nn.Sequential(
            *_layer(features, EMBEDDING),
            *_layer(EMBEDDING, EMBEDDING),
            nn.Linear(EMBEDDING, EMBEDDING, bias=False),
            nn.BatchNorm1d(EMBEDDING, affine=False),
        )
        self.predictor = nn.Sequential(
            *_layer(EMBEDDING, _BOTTLENECK), nn.Linear(_BOTTLENECK, EMBEDDING)
        )

    def forward(self, first_NCHW: Tensor, second_NCHW: Tensor) -> tuple[Sides, Sides]:
        """Both sides in one call, so that DDP sees one forward pass for each backward one."""
        return self.project(self.backbone(first_NCHW)), self.project(self.backbone(second_NCHW))

    def project(self, features_ND: Tensor) -> Sides:
        """What projector and predictor make of the backbone's features."""
        embeddings_ND = self.projector(features_ND)
        return Sides(embeddings_ND.detach(), self.predictor(embeddings_ND))


def similarity_loss(first: Sides, second: Sides) -> Tensor:
    """-1/2 (cos(p1, z2) + cos(p2, z1)), mean over images; -1 when the sides agree."""
    return image_losses(first, second).mean()


def image_losses(first: Sides, second: Sides) -> Tensor:
    """The loss of each image, (N,)."""
    agreement_N = functional.cosine_similarity(
        first.predictions_ND.float(), second.embeddings_ND.float()
    ) + functional.cosine_similarity(second.predictions_ND.float(), first.embeddings_ND.float())
    return -agreement_N / 2


def spread(embeddings_ND: Tensor) -> Tensor:
    """Standard deviation over images of the normalised embeddings, times sqrt(D).

    About 1 for embeddings that point in all directions, 0 when all images get the same one: the
    collapse that the loss alone does not show, as it is then at its best.
    """
    unit_ND = functional.normalize(embeddings_ND.double(), dim=1)
    return unit_ND.std(dim=0, correction=0).mean() * math.sqrt(unit_ND.shape[1])


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Linear(inputs, outputs, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(inplace=True),
    )


def _count_features(backbone: nn.Module, channels: int) -> int:
    """Numbers of a pooled feature vector, found by trying; timm's own figure leaves heads out."""
    backbone.eval()
    with torch.inference_mode():
        found: Tensor = backbone(torch.zeros(1, channels, 224, 224))
    backbone.train()
    return found.shape[1]
