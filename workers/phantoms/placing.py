"""How a patient lies in the image: turned, nearer or farther, off the middle."""

from dataclasses import dataclass

import cv2
import numpy as np

from workers.phantoms.noise import Array


@dataclass(frozen=True)
class Placement:
    """A similarity transform of image positions."""

    matrix: Array
    """(2, 3) float64, from drawn to shown pixels."""

    def image(self, pixels: Array, outside: float | None = None) -> Array:
        """The pixels as shown; ``outside`` fills what was not drawn, else the edge is repeated."""
        size = (pixels.shape[1], pixels.shape[0])
        if outside is None:
            return cv2.warpAffine(pixels, self.matrix, size, borderMode=cv2.BORDER_REPLICATE)
        return cv2.warpAffine(pixels, self.matrix, size, borderValue=outside)

    def mask(self, mask: Array) -> Array:
        """A mask as shown, hard edges kept."""
        size = (mask.shape[1], mask.shape[0])
        return cv2.warpAffine(mask, self.matrix, size, flags=cv2.INTER_NEAREST)


def random_placement(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    turn: float,
    zoom: tuple[float, float],
    shift: float,
) -> Placement:
    """Turned by ``turn`` degrees at most, moved by ``shift`` of the image at most."""
    height, width = shape
    centre = (width / 2, height / 2)
    matrix = cv2.getRotationMatrix2D(centre, rng.uniform(-turn, turn), rng.uniform(*zoom))
    matrix[0, 2] += rng.uniform(-shift, shift) * width
    matrix[1, 2] += rng.uniform(-shift, shift) * height
    return Placement(matrix)
