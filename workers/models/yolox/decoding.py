"""From YOLOX's maps to boxes: the best class of each place, then suppression of doubles."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from workers.detection.family import Decoded, Maps
from workers.models.yolox.places import read_places

_OVERLAP = 0.65
"""Of two boxes of one class that overlap more, the more certain one stays."""
_CANDIDATES = 300
"""Places of an image that suppression looks at, the most certain ones; three for each box that may
be told, where that is more. A network that is sure of nothing has a thousand, and would spend a
sixth of its pass on them."""


def decode(maps: Maps, limit: int, least_score: float) -> Decoded:
    """At most ``limit`` boxes an image of ``least_score`` or more: objectness times class."""
    places = read_places(maps)
    chances_NPK = places.classes_NPK.sigmoid() * places.objectness_NP[..., None].sigmoid()
    scores_NP, categories_NP = chances_NPK.max(dim=2)
    count = min(max(_CANDIDATES, 3 * limit), scores_NP.shape[1])
    best_NQ = scores_NP.topk(count, dim=1).indices
    images, device = len(scores_NP), scores_NP.device
    corners_ND4 = torch.zeros(images, limit, 4, device=device)
    scores_ND = torch.zeros(images, limit, device=device)
    categories_ND = torch.zeros(images, limit, dtype=torch.int64, device=device)
    for image in range(images):
        best = best_NQ[image][scores_NP[image, best_NQ[image]] >= least_score]
        kept = best[_apart(places.corners_NP4[image], scores_NP[image], categories_NP[image], best)]
        kept = kept[:limit]
        corners_ND4[image, : len(kept)] = places.corners_NP4[image, kept]
        scores_ND[image, : len(kept)] = scores_NP[image, kept]
        categories_ND[image, : len(kept)] = categories_NP[image, kept]
    return Decoded(corners_ND4, scores_ND, categories_ND)


def _apart(corners_P4: Tensor, scores_P: Tensor, categories_P: Tensor, among: Tensor) -> Tensor:
    """Indices into ``among`` of the boxes that stay, the most certain first."""
    kept: Tensor = batched_nms(corners_P4[among], scores_P[among], categories_P[among], _OVERLAP)
    return kept
