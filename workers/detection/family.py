"""What a family of detectors is to those that train it, score with it and write its bundle.

Suffixes: N images, C channels, S side of the square input in px, M marked boxes of the image with
most of them, D detections.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from workers.detection.boxes import Boxes

Maps = tuple[Tensor, ...]
"""What a network answers, raw: a few tensors whose first dimension is N."""

Losses = Mapping[str, Tensor]
"""The parts of a loss by name, weighted: their sum is what training minimises. Each is a mean over
the positives of all ranks, in float32."""

PADDING = -1.0
"""Category of a target row that stands for no box."""


class Decoded(NamedTuple):
    """Detections of a batch, in px of the network's input; rows of score 0 stand for nothing."""

    corners_ND4: Tensor
    """Left, top, right, bottom; float32."""
    scores_ND: Tensor
    """Falling along D; float32."""
    categories_ND: Tensor
    """int64."""

    def above(self, least_score: float) -> Self:
        """The same, where detections of less than a confidence stand for nothing."""
        told_ND = self.scores_ND >= least_score
        return self._replace(scores_ND=torch.where(told_ND, self.scores_ND, 0.0))


class DetectorFamily(Protocol):
    """One family: its networks, their loss, and the way from maps to boxes."""

    @property
    def name(self) -> str:
        """As in `BundleConfig.family`."""

    @property
    def stride(self) -> int:
        """The side of the input must be a multiple of it."""

    def build(
        self,
        architecture: str,
        classes: int,
        channels: int,
        options: Mapping[str, Any],
        *,
        pretrained: bool = False,
    ) -> nn.Module:
        """A network with random weights that maps normalised images (N, C, S, S) to `Maps`.

        ``options`` are what else shapes the family's network, by name; what is not given has a
        default. Its backbone is the submodule ``backbone``, whose names of weights are those of
        timm where it is a network of timm.

        Raises:
            BundleError: when the family has no such architecture.
        """

    def criterion(
        self, classes: int, options: Mapping[str, Any]
    ) -> Callable[[Maps, Tensor], Losses]:
        """The loss of maps and targets, float32 (N, M, 6) as `pack` makes them.

        ``options`` are the family's own settings by name; what is not given has a default.
        """

    def decode(self, maps: Maps, limit: int, least_score: float) -> Decoded:
        """At most ``limit`` detections an image, from a confidence of ``least_score`` on.

        Duplicates are suppressed as the family does it.
        """


def pack(images: Sequence[Boxes]) -> Tensor:
    """Boxes of a batch as one tensor, float32 (N, M, 6).

    Columns: left, top, right, bottom (px of the input), category, ignored (0 or 1). Rows beyond an
    image's boxes have the category `PADDING`.
    """
    most = max((len(boxes) for boxes in images), default=0)
    targets_NM6 = np.zeros((len(images), most, 6), np.float32)
    targets_NM6[:, :, 4] = PADDING
    for target_M6, boxes in zip(targets_NM6, images, strict=True):
        target_M6[: len(boxes), :4] = boxes.corners_B4
        target_M6[: len(boxes), 4] = boxes.categories_B
        target_M6[: len(boxes), 5] = boxes.ignored_B
    return torch.from_numpy(targets_NM6)
