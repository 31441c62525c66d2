"""What CenterNet is trained towards: a bump at each centre, and the sizes and offsets there.

Suffixes: N images, M boxes of the image with most, K classes, H and W of the output.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from workers.detection.family import PADDING

Radius = Literal["corrected", "original"]
"""How wide a bump is: as far as a box may be shifted or scaled and still overlap the marked one by
`MIN_OVERLAP`, or what the first implementation of the paper makes of that. It divides the roots of
its quadratic equations wrongly: 5.47 instead of 1.63 px for a box of 20 by 20 px."""

MIN_OVERLAP = 0.7
"""Intersection over union that a box from the rim of a bump has with the marked one."""


class Targets(NamedTuple):
    """Of a batch, in pixels of the output."""

    heat_NKHW: Tensor
    """1 at centres, falling to 0 around them."""
    counted_NHW: Tensor
    """False where the heat map's loss must not look: in ignored regions, but for centres."""
    sizes_NM2: Tensor
    """Width and height."""
    offsets_NM2: Tensor
    """From the corner of the centre's place to the centre, 0-1."""
    places_NM: Tensor
    """Index of the centre's place in the flattened map, int64."""
    marked_NM: Tensor
    """Which rows are boxes to be found."""


def make_targets(
    boxes_NM6: Tensor,
    shape: tuple[int, int, int],
    stride: int,
    *,
    radius: Radius = "corrected",
    min_overlap: float = MIN_OVERLAP,
) -> Targets:
    """The targets of boxes as `workers.detection.family.pack` makes them.

    ``shape`` is (K, H, W). A box whose centre lies outside the image is left out.
    """
    classes, height, width = shape
    corners_NM4 = boxes_NM6[..., :4] / stride
    sizes_NM2 = corners_NM4[..., 2:] - corners_NM4[..., :2]
    centres_NM2 = (corners_NM4[..., :2] + corners_NM4[..., 2:]) / 2
    cells_NM2 = centres_NM2.floor()
    edge = centres_NM2.new_tensor([width, height])
    inside_NM = ((cells_NM2 >= 0) & (cells_NM2 < edge)).all(dim=2) & (sizes_NM2 > 0).all(dim=2)
    given_NM = boxes_NM6[..., 4] != PADDING
    ignored_NM = given_NM & (boxes_NM6[..., 5] > 0)
    marked_NM = given_NM & inside_NM & ~ignored_NM
    bumps_NMHW = _bumps(
        cells_NM2, bump_radius(sizes_NM2, min_overlap, radius).int().clamp(min=0), (height, width)
    )
    bumps_NMHW = bumps_NMHW * marked_NM[..., None, None]
    heat_NKHW = bumps_NMHW.new_zeros(len(boxes_NM6), classes, height, width)
    index_NM = boxes_NM6[..., 4].long().clamp(min=0)
    heat_NKHW.scatter_reduce_(
        1, index_NM[..., None, None].expand_as(bumps_NMHW), bumps_NMHW, reduce="amax"
    )
    centre_NHW = (heat_NKHW == 1).any(dim=1)
    return Targets(
        heat_NKHW,
        ~_covered(corners_NM4, ignored_NM, (height, width)) | centre_NHW,
        sizes_NM2,
        centres_NM2 - cells_NM2,
        (cells_NM2[..., 1] * width + cells_NM2[..., 0]).long() * marked_NM,
        marked_NM,
    )


def bump_radius(sizes_NM2: Tensor, min_overlap: float, radius: Radius) -> Tensor:
    """Radius of the bump of boxes of these sizes (rounded up), px, not yet rounded.

    Three ways to move away from a box by r at each of two corners: both corners the same way, both
    inwards, both outwards. Each leads to a quadratic equation a r^2 + b r + c = 0 for the r at
    which the overlap is `min_overlap`; the smallest r counts.
    """
    width_NM, height_NM = sizes_NM2.ceil().unbind(dim=2)
    around_NM, area_NM = width_NM + height_NM, width_NM * height_NM
    overlap = min_overlap
    shifted = (1.0, -around_NM, area_NM * (1 - overlap) / (1 + overlap))
    inwards = (4.0, -2 * around_NM, (1 - overlap) * area_NM)
    outwards = (4 * overlap, 2 * overlap * around_NM, (overlap - 1) * area_NM)
    roots = []
    for (a, b, c), falling in ((shifted, True), (inwards, True), (outwards, False)):
        root_NM = (b**2 - 4 * a * c).clamp(min=0).sqrt()
        if radius == "original":
            # The first implementation takes -b with the other sign in the third equation, and
            # divides all by 2 in place of 2a.
            roots.append((b.abs() + root_NM) / 2 if falling else (-b + root_NM) / 2)
        else:
            roots.append((-b - root_NM if falling else -b + root_NM) / (2 * a))
    return torch.stack(roots).amin(dim=0)


def _bumps(cells_NM2: Tensor, radius_NM: Tensor, shape: tuple[int, int]) -> Tensor:
    """A Gaussian about each cell, cut off beyond its radius, (N, M, H, W); 1 at the cell."""
    height, width = shape
    far_NMW = torch.arange(width, device=cells_NM2.device) - cells_NM2[..., :1]
    far_NMH = torch.arange(height, device=cells_NM2.device) - cells_NM2[..., 1:]
    # The radius is three standard deviations, with the cell's own half.
    deviation_NM1 = ((2 * radius_NM + 1) / 6)[..., None]
    reach_NM1 = radius_NM[..., None]

    def along(far: Tensor) -> Tensor:
        return torch.exp(-(far**2) / (2 * deviation_NM1**2)) * (far.abs() <= reach_NM1)

    return along(far_NMH)[..., :, None] * along(far_NMW)[..., None, :]


def _covered(corners_NM4: Tensor, chosen_NM: Tensor, shape: tuple[int, int]) -> Tensor:
    """Which places have their middle in one of the chosen boxes, (N, H, W)."""
    height, width = shape
    x_W = torch.arange(width, device=corners_NM4.device) + 0.5
    y_H = torch.arange(height, device=corners_NM4.device) + 0.5
    left, top, right, bottom = corners_NM4[..., None].unbind(dim=2)
    in_x_NMW = (x_W >= left) & (x_W <= right)
    in_y_NMH = (y_H >= top) & (y_H <= bottom)
    inside_NMHW = in_y_NMH[..., :, None] & in_x_NMW[..., None, :]
    return (inside_NMHW & chosen_NM[..., None, None]).any(dim=1)
