"""From CenterNet's maps to boxes: the peaks of the heat map, with the size and offset there."""

import torch
from torch import Tensor
from torch.nn import functional

from workers.detection.family import Decoded, Maps
from workers.models.centernet.network import STRIDE


def decode(maps: Maps, limit: int) -> Decoded:
    """The ``limit`` highest peaks of an image over all classes; no boxes are suppressed."""
    heat_NKHW, sizes_N2HW, offsets_N2HW = (one.float() for one in maps)
    peaks_NKHW = _peaks(heat_NKHW.sigmoid())
    height, width = peaks_NKHW.shape[2:]
    flat = peaks_NKHW.flatten(1)
    scores_ND, best_ND = flat.topk(min(limit, flat.shape[1]), dim=1)
    places_ND = best_ND % (height * width)
    centres_ND2 = torch.stack([places_ND % width, places_ND // width], dim=2).float()
    centres_ND2 = centres_ND2 + _at(offsets_N2HW, places_ND)
    halves_ND2 = _at(sizes_N2HW, places_ND).clamp(min=0) / 2
    corners_ND4 = torch.cat([centres_ND2 - halves_ND2, centres_ND2 + halves_ND2], dim=2) * STRIDE
    return Decoded(corners_ND4, scores_ND, best_ND // (height * width))


def _peaks(heat_NKHW: Tensor) -> Tensor:
    """The heat map at its local maxima, 0 elsewhere.

    Of equal neighbours the first counts, so that a plateau is one peak and not several.
    """
    _, where_NKHW = functional.max_pool2d(heat_NKHW, 3, stride=1, padding=1, return_indices=True)
    height, width = heat_NKHW.shape[2:]
    own_HW = torch.arange(height * width, device=heat_NKHW.device).view(height, width)
    return torch.where(where_NKHW == own_HW, heat_NKHW, 0.0)


def _at(map_N2HW: Tensor, places_ND: Tensor) -> Tensor:
    """The map's two values at places of the flattened map, (N, D, 2)."""
    flat_N2P = map_N2HW.flatten(2)
    return flat_N2P.gather(2, places_ND[:, None, :].expand(-1, 2, -1)).transpose(1, 2)
