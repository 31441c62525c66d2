"""A detector's maps as one row of numbers an image, and back to maps and boxes.

Scorers of every runtime hand out one array a batch. So a detector's network ends with its maps laid
out one after the other, and what they are is known from their shapes.

Suffixes: N images, C channels, S side of the input in px, R numbers of all maps of an image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.bundle import DetectionSettings
from workers.detection.boxes import Boxes, Detections, has_area, to_corners, to_sizes
from workers.detection.family import Decoded, DetectorFamily, Maps
from workers.pixels.recipe import Geometry
from workers.scoring.forward import Batched, Outputs, Pixels

Shape = tuple[int, ...]
"""Of one map of one image."""


class FlatMaps(nn.Module):
    """A detector that answers with one row of float32 an image, (N, R)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NCSS: Tensor) -> Tensor:
        """All maps, flattened, in their order."""
        maps: Maps = self.network(images_NCSS)
        return torch.cat([one.flatten(1).float() for one in maps], dim=1)


def map_shapes(network: nn.Module, channels: int, side: int) -> tuple[Shape, ...]:
    """The shapes of a detector's maps for an input of this side, found by trying."""
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        maps: Maps = network(torch.zeros(1, channels, side, side))
    network.train(was_training)
    return tuple(tuple(one.shape[1:]) for one in maps)


def to_maps(outputs_NR: NDArray[np.float32], shapes: Sequence[Shape]) -> Maps:
    """The maps that `FlatMaps` laid out."""
    rows_NR = torch.from_numpy(outputs_NR)
    parts = rows_NR.split([math.prod(shape) for shape in shapes], dim=1)
    return tuple(
        part.reshape(len(rows_NR), *shape) for part, shape in zip(parts, shapes, strict=True)
    )


@dataclass(frozen=True)
class Reading:
    """How a network's outputs become detections."""

    family: DetectorFamily
    settings: DetectionSettings

    def detections(self, outputs_NR: Outputs) -> list[Detections]:
        """By image, in px of the network's input."""
        settings = self.settings
        with torch.inference_mode():
            maps = to_maps(outputs_NR, settings.maps)
            decoded = self.family.decode(maps, settings.limit, settings.least_score)
        return to_detections(decoded)

    def read(self, network: Batched, pixels_NCSS: Pixels) -> list[Detections]:
        """What a network detects in any number of images; maps of one pass are held at a time."""
        found: list[Detections] = []
        for start in range(0, len(pixels_NCSS), network.batch):
            found += self.detections(network.outputs(pixels_NCSS[start : start + network.batch]))
        return found


def to_detections(decoded: Decoded) -> list[Detections]:
    """Decoded rows as detections an image, without those that stand for nothing or have no size."""
    corners_ND4 = decoded.corners_ND4.float().cpu().numpy()
    scores_ND = decoded.scores_ND.float().cpu().numpy()
    categories_ND = decoded.categories_ND.cpu().numpy()
    real_ND = (scores_ND > 0) & has_area(corners_ND4)
    return [
        Detections(corners_D4, scores_D, categories_D).take(real_D)
        for corners_D4, scores_D, categories_D, real_D in zip(
            corners_ND4, scores_ND, categories_ND, real_ND, strict=True
        )
    ]


def to_original(
    found: Detections, geometry: Geometry, size: tuple[float, float] | None
) -> Detections:
    """Detections in px of the original, upright, cut at its edges where its size is known.

    ``size`` is width and height. What lies in the padding of a letterbox alone is no detection.
    """
    corners_D4 = to_corners(geometry.to_original(to_sizes(found.corners_D4)))
    if size is not None:
        corners_D4 = np.clip(corners_D4, 0, np.array([*size, *size], np.float32))
    moved = Detections(corners_D4, found.scores_D, found.categories_D)
    return moved.take(has_area(corners_D4))


def count_boxes(images: Sequence[Boxes], classes: int) -> NDArray[np.int64]:
    """Boxes to be found by category."""
    counts_K = np.zeros(classes, np.int64)
    for boxes in images:
        counts_K += np.bincount(boxes.categories_B[~boxes.ignored_B], minlength=classes)
    return counts_K
