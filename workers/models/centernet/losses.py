"""CenterNet's loss: focal on the heat map, absolute differences of sizes and offsets.

Suffixes: N images, K classes, H and W of the output, M boxes of the image with most.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.detection.family import Losses, Maps
from workers.models.centernet.network import STRIDE
from workers.models.centernet.targets import MIN_OVERLAP, Radius, Targets, make_targets
from workers.training import ranks

_CLAMP = 1e-4


@dataclass(frozen=True)
class CenterNetLoss:
    """Weights of the parts, and how wide a bump is."""

    classes: int
    radius: Radius = "corrected"
    min_overlap: float = MIN_OVERLAP
    size_weight: float = 0.1
    offset_weight: float = 1.0

    def __call__(self, maps: Maps, boxes_NM6: Tensor) -> Losses:
        """The parts ``heat``, ``size`` and ``offset``; means over the boxes of all ranks."""
        # In half precision 1 - 1e-4 is 1, and its logarithm would be infinite.
        heat_NKHW, sizes_N2HW, offsets_N2HW = (one.float() for one in maps)
        targets = make_targets(
            boxes_NM6,
            (self.classes, *heat_NKHW.shape[2:]),
            STRIDE,
            radius=self.radius,
            min_overlap=self.min_overlap,
        )
        boxes = ranks.average(targets.marked_NM.sum().float()).clamp(min=1)
        return {
            "heat": focal(heat_NKHW, targets) / boxes,
            "size": self.size_weight * _differences(sizes_N2HW, targets.sizes_NM2, targets) / boxes,
            "offset": self.offset_weight
            * _differences(offsets_N2HW, targets.offsets_NM2, targets)
            / boxes,
        }


def focal(logits_NKHW: Tensor, targets: Targets) -> Tensor:
    """The penalty-reduced focal loss, summed over all places that count.

    A centre costs -(1 - p)^2 log p, any other place -(1 - y)^4 p^2 log(1 - p), where y is the
    target, so that a place beside a centre costs less.
    """
    p_NKHW = logits_NKHW.sigmoid().clamp(_CLAMP, 1 - _CLAMP)
    y_NKHW = targets.heat_NKHW
    centre_NKHW = y_NKHW == 1
    cost_NKHW = torch.where(
        centre_NKHW,
        (1 - p_NKHW) ** 2 * p_NKHW.log(),
        (1 - y_NKHW) ** 4 * p_NKHW**2 * (1 - p_NKHW).log(),
    )
    return -(cost_NKHW * targets.counted_NHW[:, None]).sum()


def _differences(map_N2HW: Tensor, wanted_NM2: Tensor, targets: Targets) -> Tensor:
    """Absolute differences at the centres of the marked boxes, summed."""
    flat_N2P = map_N2HW.flatten(2)
    places_N2M = targets.places_NM[:, None, :].expand(-1, 2, -1)
    found_NM2 = flat_N2P.gather(2, places_N2M).transpose(1, 2)
    return ((found_NM2 - wanted_NM2).abs() * targets.marked_NM[..., None]).sum()
