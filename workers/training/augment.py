"""Random changes of training images, on batches of tensors, from a seeded generator."""

import math

import torch
from torch import Generator, Tensor

from workers.training.blurring import blur
from workers.training.config import Augmentation
from workers.training.randaugment import randaugment


def augment(pixels_NCHW: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    """Change each image of a uint8 batch on its own; returns uint8 of the same shape.

    All draws are made on the CPU from ``generator``, so that they do not depend on the device.
    The order is: geometry, where what moves in from outside is black, as the padding of a letterbox
    is; blur; contrast and brightness, which change that black with the rest; RandAugment.
    """
    images_NCHW = pixels_NCHW.float()
    if _moves(augmentation):
        theta_N23 = affine_matrices(len(images_NCHW), augmentation, generator)
        shape = list(images_NCHW.shape)
        grid_NHW2 = torch.nn.functional.affine_grid(
            theta_N23.to(images_NCHW.device), shape, align_corners=False
        )
        images_NCHW = torch.nn.functional.grid_sample(
            images_NCHW, grid_NHW2, mode="bilinear", padding_mode="zeros", align_corners=False
        )
    if augmentation.blur_px:
        images_NCHW = blur(images_NCHW, _widths(len(images_NCHW), augmentation, generator))
    if augmentation.contrast or augmentation.brightness:
        images_NCHW = _tone(images_NCHW, augmentation, generator)
    changed_NCHW = images_NCHW.round().clamp(0, 255).to(torch.uint8)
    if augmentation.randaugment is None:
        return changed_NCHW
    return randaugment(changed_NCHW, *augmentation.randaugment, generator)


def affine_matrices(count: int, augmentation: Augmentation, generator: Generator) -> Tensor:
    """(N, 2, 3) maps from output to input in the coordinates of `affine_grid` (-1 to 1).

    Aspect, then rotation, shear, scale and shift, each drawn uniformly within its limits (the
    aspect on a logarithmic scale); the image is square, so no correction for its own is needed.
    """
    angle_N = _uniform(count, math.radians(augmentation.rotate_deg), generator)
    shear_N = _uniform(count, math.radians(augmentation.shear_deg), generator)
    scale_N = 1 + _uniform(count, augmentation.scale, generator)
    # A shift by a share of the side is twice that share in coordinates that span -1 to 1.
    shift_N2 = torch.stack(
        [2 * _uniform(count, augmentation.translate, generator) for _ in "xy"], dim=1
    )
    mirrored_N = torch.rand(count, generator=generator) < (0.5 if augmentation.flip else 0.0)
    sign_N = torch.where(mirrored_N, -1.0, 1.0)
    cos_N, sin_N, tan_N = angle_N.cos(), angle_N.sin(), shear_N.tan()
    row0_N2 = torch.stack([cos_N, cos_N * tan_N - sin_N], dim=1)
    row1_N2 = torch.stack([sin_N, sin_N * tan_N + cos_N], dim=1)
    turn_N22 = torch.stack([row0_N2 * sign_N[:, None], row1_N2], dim=1) / scale_N[:, None, None]
    if augmentation.aspect:
        # Width and height change by the roots, so that the area stays.
        wider_N = (_uniform(count, math.log(1 + augmentation.aspect), generator) / 2).exp()
        turn_N22 = turn_N22 / torch.stack([wider_N, 1 / wider_N], dim=1)[:, :, None]
    return torch.cat([turn_N22, shift_N2[:, :, None]], dim=2)


def _tone(images_NCHW: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    count = len(images_NCHW)
    factor_N = 1 + _uniform(count, augmentation.contrast, generator)
    added_N = 255 * _uniform(count, augmentation.brightness, generator)
    device = images_NCHW.device
    factor_N111 = factor_N.to(device).view(-1, 1, 1, 1)
    added_N111 = added_N.to(device).view(-1, 1, 1, 1)
    mean_N111 = images_NCHW.mean(dim=(1, 2, 3), keepdim=True)
    return (images_NCHW - mean_N111) * factor_N111 + mean_N111 + added_N111


def _moves(augmentation: Augmentation) -> bool:
    sizes = (
        augmentation.rotate_deg,
        augmentation.translate,
        augmentation.scale,
        augmentation.aspect,
        augmentation.shear_deg,
    )
    return any(sizes) or augmentation.flip


def _widths(count: int, augmentation: Augmentation, generator: Generator) -> Tensor:
    """Standard deviation of each image's blur, px; 0 for about half of them."""
    blurred_N = torch.rand(count, generator=generator) < 0.5
    return torch.rand(count, generator=generator) * augmentation.blur_px * blurred_N


def _uniform(count: int, limit: float, generator: Generator) -> Tensor:
    return (2 * torch.rand(count, generator=generator) - 1) * limit
