"""Two random views of each image, as SimSiam wants them, on batches of tensors.

Suffixes: N images, C channels, S side of an image.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from workers.training.blurring import blur

_ASPECT = (3 / 4, 4 / 3)
_SIGMA_PX = (0.1, 2.0)
_SIGMA_SIDE_PX = 224
"""Side of the images for which the blur's strength is given; it shrinks with smaller ones."""


@dataclass(frozen=True)
class Views:
    """How far views may differ; hue and greying have no place in grey images."""

    smallest_crop: float = 0.2
    """Share of the image's area."""
    tone: float = 0.4
    """Largest change of brightness and contrast, as a factor."""
    tone_chance: float = 0.8
    blur_chance: float = 0.5
    flip: bool = True
    """Mirror left and right with a chance of a half; wrong where laterality carries meaning."""


def make_view(images_NCSS: Tensor, views: Views, generator: Generator) -> Tensor:
    """A view of each image of a uint8 batch; returns uint8 of the same shape.

    All draws are made on the CPU from ``generator``, so that they do not depend on the device.
    """
    found_NCSS = _crop(images_NCSS.float(), views, generator)
    found_NCSS = _tone(found_NCSS, views, generator)
    found_NCSS = _blur(found_NCSS, views, generator)
    return found_NCSS.round().clamp(0, 255).to(torch.uint8)


def _crop(images_NCSS: Tensor, views: Views, generator: Generator) -> Tensor:
    """A random part of random shape, at the full size again."""
    count = len(images_NCSS)
    area_N = _uniform(count, views.smallest_crop, 1.0, generator)
    shape_N = _uniform(count, math.log(_ASPECT[0]), math.log(_ASPECT[1]), generator).exp()
    shape_N = shape_N.clamp(area_N, 1 / area_N)  # no side is longer than the image's
    side_N2 = torch.stack([(area_N * shape_N).sqrt(), (area_N / shape_N).sqrt()], dim=1)
    # In the coordinates of `affine_grid` the image reaches from -1 to 1.
    centre_N2 = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - side_N2)
    mirrored_N = torch.rand(count, generator=generator) < (0.5 if views.flip else 0.0)
    sign_N = torch.where(mirrored_N, -1.0, 1.0)
    theta_N23 = torch.zeros(count, 2, 3)
    theta_N23[:, 0, 0] = side_N2[:, 0] * sign_N
    theta_N23[:, 1, 1] = side_N2[:, 1]
    theta_N23[:, :, 2] = centre_N2
    grid_NSS2 = functional.affine_grid(
        theta_N23.to(images_NCSS.device), list(images_NCSS.shape), align_corners=False
    )
    return functional.grid_sample(
        images_NCSS, grid_NSS2, mode="bilinear", padding_mode="border", align_corners=False
    )


def _tone(images_NCSS: Tensor, views: Views, generator: Generator) -> Tensor:
    count = len(images_NCSS)
    changed_N = torch.rand(count, generator=generator) < views.tone_chance
    factors = [
        torch.where(changed_N, _uniform(count, 1 - views.tone, 1 + views.tone, generator), 1.0)
        .to(images_NCSS.device)
        .view(-1, 1, 1, 1)
        for _ in range(2)
    ]
    bright_NCSS = images_NCSS * factors[0]
    mean_N111 = bright_NCSS.mean(dim=(1, 2, 3), keepdim=True)
    return (bright_NCSS - mean_N111) * factors[1] + mean_N111


def _blur(images_NCSS: Tensor, views: Views, generator: Generator) -> Tensor:
    """A Gaussian of a width drawn for each image."""
    count, side = len(images_NCSS), images_NCSS.shape[-1]
    blurred_N = torch.rand(count, generator=generator) < views.blur_chance
    sigma_N = _uniform(count, *_SIGMA_PX, generator) * side / _SIGMA_SIDE_PX
    return blur(images_NCSS, sigma_N * blurred_N)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)
