"""SimOTA: which places of an image learn which of its boxes, judged by what they answer now.

Suffixes: B boxes of one image, P places, K classes, Q candidate places.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

_REACH = 1.5
"""A candidate's middle lies so many strides from that of the box at most, along both axes."""
_BOX_WEIGHT = 3.0
_FAR = 1e6
"""Cost of a place that is a candidate of other boxes only."""
_BEST = 10
"""Overlaps that are added up to say how many places a box takes."""


class Answers(NamedTuple):
    """What the places of one image answer."""

    corners_P4: Tensor
    objectness_P: Tensor
    """Logits."""
    classes_PK: Tensor
    """Logits."""
    centres_P2: Tensor
    strides_P: Tensor


class Assigned(NamedTuple):
    """Places that learn a box."""

    places_Q: Tensor
    """Indices of the places."""
    boxes_Q: Tensor
    """Index of the box of each."""
    overlaps_Q: Tensor
    """Intersection over union of its answer with the box."""


@torch.no_grad()
def assign(answers: Answers, corners_B4: Tensor, categories_B: Tensor) -> Assigned:
    """Give each box the places that cost least, as many as its overlaps add up to, at least one.

    A place that several boxes want goes to the one it costs least.
    """
    near_BP = _near(answers, corners_B4)
    candidates_Q = near_BP.any(dim=0).nonzero().flatten()
    if not len(candidates_Q):
        nothing = candidates_Q.new_zeros(0)
        return Assigned(nothing, nothing, corners_B4.new_zeros(0))
    overlaps_BQ = box_iou(corners_B4, answers.corners_P4[candidates_Q])
    cost_BQ = (
        _class_cost(answers, candidates_Q, categories_B)
        - _BOX_WEIGHT * (overlaps_BQ + 1e-8).log()
        + _FAR * ~near_BP[:, candidates_Q]
    )
    chosen_BQ = _cheapest(cost_BQ, overlaps_BQ)
    # A place that several boxes want goes to the cheapest of all boxes.
    several_Q = chosen_BQ.sum(dim=0) > 1
    cheapest_BQ = functional.one_hot(cost_BQ.argmin(dim=0), len(cost_BQ)).T.bool()
    chosen_BQ = torch.where(several_Q, cheapest_BQ, chosen_BQ)
    taken_Q = chosen_BQ.any(dim=0).nonzero().flatten()
    boxes_Q = chosen_BQ[:, taken_Q].int().argmax(dim=0)
    return Assigned(candidates_Q[taken_Q], boxes_Q, overlaps_BQ[boxes_Q, taken_Q])


def _near(answers: Answers, corners_B4: Tensor) -> Tensor:
    centres_B12 = (corners_B4[:, None, :2] + corners_B4[:, None, 2:]) / 2
    far_BP2 = (answers.centres_P2 - centres_B12).abs()
    return (far_BP2 < _REACH * answers.strides_P[:, None]).all(dim=2)


def _class_cost(answers: Answers, candidates_Q: Tensor, categories_B: Tensor) -> Tensor:
    """Binary cross-entropy of sqrt(class x objectness) against each box's class, (B, Q)."""
    p_QK = (
        answers.classes_PK[candidates_Q].sigmoid()
        * answers.objectness_P[candidates_Q, None].sigmoid()
    ).sqrt()
    # As binary_cross_entropy has it: no logarithm below -100.
    yes_QK = p_QK.log().clamp(min=-100)
    no_QK = (1 - p_QK).log().clamp(min=-100)
    none_Q1 = no_QK.sum(dim=1, keepdim=True)
    return -(none_Q1 - no_QK + yes_QK)[:, categories_B].T


def _cheapest(cost_BQ: Tensor, overlaps_BQ: Tensor) -> Tensor:
    best = min(_BEST, cost_BQ.shape[1])
    counts_B = overlaps_BQ.topk(best, dim=1).values.sum(dim=1).int().clamp(min=1)
    order_BQ = cost_BQ.argsort(dim=1, stable=True)
    rank_BQ = torch.empty_like(order_BQ)
    ranks_Q = torch.arange(cost_BQ.shape[1], device=cost_BQ.device)
    rank_BQ.scatter_(1, order_BQ, ranks_Q.expand_as(order_BQ))
    return rank_BQ < counts_B[:, None]
