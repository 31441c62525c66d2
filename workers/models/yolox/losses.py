"""YOLOX's loss: overlap of boxes, objectness, classes.

Suffixes: N images, M boxes of the image with most, P places, Q assigned places, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workers.detection.family import PADDING, Losses, Maps
from workers.models.yolox.assigning import Answers, assign
from workers.models.yolox.places import Places, read_places
from workers.training import ranks

_BOX_WEIGHT = 5.0


@dataclass(frozen=True)
class YoloxLoss:
    """The sum of the parts over the assigned places of all ranks, divided by their number."""

    classes: int
    l1: bool = False
    """Also the absolute differences of the raw boxes, which refines the last epochs."""

    def __call__(self, maps: Maps, boxes_NM6: Tensor) -> Losses:
        """The parts ``box``, ``objectness``, ``class``, and ``l1`` where asked."""
        places = read_places(maps)
        wanted = [_assign(places, image, boxes_M6) for image, boxes_M6 in enumerate(boxes_NM6)]
        assigned = ranks.average(places.strides_P.new_tensor(float(sum(map(_count, wanted)))))
        sums = [self._image(places, image, one) for image, one in enumerate(wanted)]
        return {
            name: torch.stack([parts[name] for parts in sums]).sum() / assigned.clamp(min=1)
            for name in sums[0]
        }

    def _image(self, places: Places, image: int, wanted: "_Wanted") -> dict[str, Tensor]:
        at = wanted.places_Q
        found_Q4 = places.corners_NP4[image, at]
        objectness_P = functional.binary_cross_entropy_with_logits(
            places.objectness_NP[image], wanted.object_P, reduction="none"
        )
        one_hot_QK = functional.one_hot(wanted.categories_Q, self.classes)
        parts = {
            "box": _BOX_WEIGHT * (1 - _paired_overlap(found_Q4, wanted.corners_Q4) ** 2).sum(),
            "objectness": (objectness_P * wanted.counted_P).sum(),
            "class": functional.binary_cross_entropy_with_logits(
                places.classes_NPK[image, at],
                one_hot_QK * wanted.overlaps_Q[:, None],
                reduction="sum",
            ),
        }
        if self.l1:
            raw_Q4 = _raw(wanted.corners_Q4, places.cells_P2[at], places.strides_P[at])
            parts["l1"] = (places.raw_NP4[image, at] - raw_Q4).abs().sum()
        return parts


@dataclass(frozen=True)
class _Wanted:
    """What the places of one image shall answer."""

    places_Q: Tensor
    corners_Q4: Tensor
    categories_Q: Tensor
    overlaps_Q: Tensor
    object_P: Tensor
    """1 where a box is assigned, 0 elsewhere."""
    counted_P: Tensor
    """False in ignored regions where nothing is assigned."""


def _count(wanted: _Wanted) -> int:
    return len(wanted.places_Q)


def _assign(places: Places, image: int, boxes_M6: Tensor) -> _Wanted:
    given_M = boxes_M6[:, 4] != PADDING
    ignored_M = given_M & (boxes_M6[:, 5] > 0)
    corners_B4 = boxes_M6[given_M & ~ignored_M, :4]
    categories_B = boxes_M6[given_M & ~ignored_M, 4].long()
    answers = Answers(
        places.corners_NP4[image],
        places.objectness_NP[image],
        places.classes_NPK[image],
        places.centres_P2,
        places.strides_P,
    )
    assigned = assign(answers, corners_B4, categories_B)
    object_P = torch.zeros_like(places.strides_P)
    object_P[assigned.places_Q] = 1.0
    middles_P12 = places.centres_P2[:, None]
    low_B2, high_B2 = boxes_M6[ignored_M, :2], boxes_M6[ignored_M, 2:4]
    inside_P = ((middles_P12 >= low_B2) & (middles_P12 <= high_B2)).all(dim=2).any(dim=1)
    return _Wanted(
        assigned.places_Q,
        corners_B4[assigned.boxes_Q],
        categories_B[assigned.boxes_Q],
        assigned.overlaps_Q,
        object_P,
        ~inside_P | (object_P > 0),
    )


def _paired_overlap(one_Q4: Tensor, other_Q4: Tensor) -> Tensor:
    """Intersection over union of each box with the one beside it."""
    low_Q2 = torch.maximum(one_Q4[:, :2], other_Q4[:, :2])
    high_Q2 = torch.minimum(one_Q4[:, 2:], other_Q4[:, 2:])
    shared_Q = (high_Q2 - low_Q2).clamp(min=0).prod(dim=1)
    sizes_Q = (one_Q4[:, 2:] - one_Q4[:, :2]).prod(dim=1)
    others_Q = (other_Q4[:, 2:] - other_Q4[:, :2]).prod(dim=1)
    return shared_Q / (sizes_Q + others_Q - shared_Q + 1e-16)


def _raw(corners_Q4: Tensor, cells_Q2: Tensor, strides_Q: Tensor) -> Tensor:
    """Boxes as the network gives them at a place: the inverse of `read_places`."""
    centres_Q2 = (corners_Q4[:, :2] + corners_Q4[:, 2:]) / 2
    sizes_Q2 = corners_Q4[:, 2:] - corners_Q4[:, :2]
    return torch.cat(
        [
            centres_Q2 / strides_Q[:, None] - cells_Q2,
            (sizes_Q2 / strides_Q[:, None] + 1e-8).log(),
        ],
        dim=1,
    )
