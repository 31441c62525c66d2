"""The places of YOLOX's three maps in one row, and the boxes they stand for.

Suffixes: N images, P places of all maps together, K classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from workers.detection.family import Maps
from workers.models.yolox.network import STRIDES


class Places(NamedTuple):
    """What a network says at every place, in px of the input."""

    corners_NP4: Tensor
    """Left, top, right, bottom of the box."""
    raw_NP4: Tensor
    """The box as the network gives it."""
    objectness_NP: Tensor
    """Logits."""
    classes_NPK: Tensor
    """Logits."""
    cells_P2: Tensor
    """Column and row of the place in its map."""
    strides_P: Tensor
    """Input pixels to one of its map."""
    centres_P2: Tensor
    """Middle of each place."""


def read_places(maps: Maps) -> Places:
    """All maps as one row of places, in float32."""
    rows, cells, strides = [], [], []
    for map_NRHW, stride in zip(maps, STRIDES, strict=True):
        height, width = map_NRHW.shape[2:]
        rows.append(map_NRHW.float().flatten(2).transpose(1, 2))
        y_H = torch.arange(height, device=map_NRHW.device)
        x_W = torch.arange(width, device=map_NRHW.device)
        y_HW, x_HW = torch.meshgrid(y_H, x_W, indexing="ij")
        cells.append(torch.stack([x_HW, y_HW], dim=2).view(-1, 2))
        strides.append(torch.full((height * width,), float(stride), device=map_NRHW.device))
    found_NPR = torch.cat(rows, dim=1)
    cells_P2, strides_P = torch.cat(cells).float(), torch.cat(strides)
    raw_NP4 = found_NPR[..., :4]
    centres_NP2 = (raw_NP4[..., :2] + cells_P2) * strides_P[:, None]
    halves_NP2 = raw_NP4[..., 2:].exp() * strides_P[:, None] / 2
    return Places(
        torch.cat([centres_NP2 - halves_NP2, centres_NP2 + halves_NP2], dim=2),
        raw_NP4,
        found_NPR[..., 4],
        found_NPR[..., 5:],
        cells_P2,
        strides_P,
        (cells_P2 + 0.5) * strides_P[:, None],
    )
