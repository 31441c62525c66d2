"""A Gaussian blur of a width of its own for each image of a batch.

Suffixes: N images, C channels, S side of an image, B pixels of the kernel.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def blur(images_NCSS: Tensor, sigma_px_N: Tensor) -> Tensor:
    """Blur float images along rows and then columns; a width of 0 leaves an image as it is.

    Kernels reach three standard deviations of the widest; pixels at the rim are repeated.
    """
    count, channels, _, side = images_NCSS.shape
    reach = max(math.ceil(3 * float(sigma_px_N.max())), 1)
    far_B = torch.arange(-reach, reach + 1)
    # A width near 0 gives a kernel of a single 1.
    kernel_NB = torch.exp(-(far_B**2) / (2 * sigma_px_N[:, None].clamp(min=1e-3) ** 2))
    kernel_NB = (kernel_NB / kernel_NB.sum(dim=1, keepdim=True)).to(images_NCSS.device)
    kernel_MB = kernel_NB.repeat_interleave(channels, dim=0)
    # Every image has a kernel of its own: images and channels become groups of one batch.
    flat_1MSS = images_NCSS.reshape(1, count * channels, side, side)
    groups = count * channels
    padded = functional.pad(flat_1MSS, (reach, reach, reach, reach), mode="replicate")
    rows = functional.conv2d(padded, kernel_MB[:, None, None, :], groups=groups)
    both = functional.conv2d(rows, kernel_MB[:, None, :, None], groups=groups)
    return both.view_as(images_NCSS)
