"""Seeded randomness: generators by address, smooth fields and ultrasound speckle."""

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def generator(seed: int, *address: int) -> np.random.Generator:
    """The generator at ``address``; equal addresses give equal streams, whatever ran before."""
    return np.random.default_rng(np.random.SeedSequence([seed, *address]))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Array:
    """A smooth random field (H, W), float32, about standard normal, with ``cells`` bumps."""
    coarse = rng.standard_normal((cells[0] + 1, cells[1] + 1), dtype=np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def fractal_field(
    rng: np.random.Generator, shape: tuple[int, int], cells: int, octaves: int
) -> Array:
    """Smooth fields of doubling detail and halving height (H, W), float32, of unit deviation."""
    # Summed on a grid just fine enough for the last octave, then enlarged once.
    side = 3 * cells * 2 ** (octaves - 1)
    field = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        count = cells * 2**octave
        field += smooth_field(rng, (side, side), (count, count)) / 2**octave
    field /= np.float32(field.std() + 1e-6)
    return cv2.resize(field, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def speckle_db(
    rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float], looks: float
) -> Array:
    """Fully developed speckle (H, W), float32, in dB about its mean power.

    The complex field of many scatterers is circular Gaussian, so its amplitude follows Rayleigh's
    distribution; ``cell`` is the width of the pulse in rows and columns (standard deviations,
    px). ``looks`` between 0 and 1 mixes in a locally averaged power, as spatial compounding does.
    Burckhardt, Speckle in ultrasound B-mode scans, IEEE Trans. Sonics Ultrasonics 25 (1978).
    """
    noise = rng.standard_normal((*shape, 2), dtype=np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), sigmaX=cell[1], sigmaY=cell[0])
    power: Array = np.einsum("rbc,rbc->rb", field, field)
    averaged = cv2.GaussianBlur(power, (0, 0), sigmaX=1.5 * cell[1], sigmaY=1.5 * cell[0])
    power = (1.0 - looks) * power + looks * averaged
    power /= power.mean()
    level_db: Array = (10 / math.log(10)) * cv2.log(power + 1e-4)
    return level_db


def softened(layer: Array, sigma: float) -> Array:
    """Blur by two box filters, near a Gaussian of ``sigma`` px; its cost does not grow with it."""
    width = max(1, round(math.sqrt(6 * sigma * sigma + 1)))
    once = cv2.blur(layer, (width, width), borderType=cv2.BORDER_REPLICATE)
    return cv2.blur(once, (width, width), borderType=cv2.BORDER_REPLICATE)
