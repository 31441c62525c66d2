"""RandAugment (Cubuk et al. 2020) with the operations and magnitudes of torchvision.

torchvision's own class draws from the process's one generator, which the training thread uses for
dropout at the same time. Here draws come from a generator that is handed in; in the same order, so
that equal seeds give equal images.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

BINS = 31
"""Steps of a magnitude."""

Operation = Callable[[Tensor, float], Tensor]
"""Changes one uint8 image (C, H, W) by a magnitude."""
Space = Mapping[str, tuple[Tensor, bool]]
"""By operation: its magnitude at each step, and whether a coin turns its sign."""


def randaugment(
    pixels_NCHW: Tensor, operations: int, magnitude: int, generator: Generator
) -> Tensor:
    """Apply ``operations`` random operations to each image of a uint8 batch, one after the other.

    One or three channels; one channel has no colour to change. What moves in from outside is black.
    """
    space = magnitudes(pixels_NCHW.shape[-1])
    changed = list(pixels_NCHW)
    for place in range(len(changed)):
        for _ in range(operations):
            name, strength = _draw(space, magnitude, generator)
            changed[place] = OPERATIONS[name](changed[place], strength)
    return torch.stack(changed)


def magnitudes(side_px: int) -> Space:
    """Every operation's magnitudes; none for those that take none.

    Shifts are in pixels of a square image.
    """
    none = torch.empty(0)
    shear = torch.linspace(0.0, 0.3, BINS)
    shift = torch.linspace(0.0, 150 / 331 * side_px, BINS)
    tone = torch.linspace(0.0, 0.9, BINS)
    return {
        "Identity": (none, False),
        "ShearX": (shear, True),
        "ShearY": (shear, True),
        "TranslateX": (shift, True),
        "TranslateY": (shift, True),
        "Rotate": (torch.linspace(0.0, 30.0, BINS), True),
        "Brightness": (tone, True),
        "Color": (tone, True),
        "Contrast": (tone, True),
        "Sharpness": (tone, True),
        "Posterize": (8 - (torch.arange(BINS) / ((BINS - 1) / 4)).round(), False),
        "Solarize": (torch.linspace(255.0, 0.0, BINS), False),
        "AutoContrast": (none, False),
        "Equalize": (none, False),
    }


def _draw(space: Space, magnitude: int, generator: Generator) -> tuple[str, float]:
    """An operation and its strength."""
    names = tuple(space)
    name = names[int(torch.randint(len(names), (), generator=generator))]
    steps, signed = space[name]
    strength = float(steps[magnitude]) if len(steps) else 0.0
    # The coin is drawn for signed operations only, as torchvision does.
    if signed and float(torch.rand((), generator=generator)) <= 0.5:
        strength = -strength
    return name, strength


def _shear(image_CHW: Tensor, x: float, y: float) -> Tensor:
    # The magnitude is the slope; the corner stays in place.
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    changed: Tensor = functional.affine(
        image_CHW, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0, 0]
    )
    return changed


def _shift(image_CHW: Tensor, x: float, y: float) -> Tensor:
    changed: Tensor = functional.affine(
        image_CHW, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0]
    )
    return changed


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "Identity": lambda image, _: image,
        "ShearX": lambda image, slope: _shear(image, slope, 0.0),
        "ShearY": lambda image, slope: _shear(image, 0.0, slope),
        "TranslateX": lambda image, px: _shift(image, px, 0.0),
        "TranslateY": lambda image, px: _shift(image, 0.0, px),
        "Rotate": functional.rotate,
        "Brightness": lambda image, by: functional.adjust_brightness(image, 1 + by),
        "Color": lambda image, by: functional.adjust_saturation(image, 1 + by),
        "Contrast": lambda image, by: functional.adjust_contrast(image, 1 + by),
        "Sharpness": lambda image, by: functional.adjust_sharpness(image, 1 + by),
        "Posterize": lambda image, bits: functional.posterize(image, int(bits)),
        "Solarize": functional.solarize,
        "AutoContrast": lambda image, _: functional.autocontrast(image),
        "Equalize": lambda image, _: functional.equalize(image),
    }
)
"""torchvision's fourteen operations by its names."""
