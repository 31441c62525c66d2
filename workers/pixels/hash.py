"""Perceptual hash of an image, equal bit for bit to `imagehash.phash` with its defaults.

What is hashed is the 8-bit view of a frame (`workers.pixels.recipe.to_uint8`): windowed,
MONOCHROME1 inverted, EXIF applied, palette expanded, alpha composed on black. A hash equals
`imagehash.phash(PIL.Image.fromarray(view))`; a file that Pillow shows differently (16 bit, alpha)
may have another hash there.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

HASH_SIDE = 8
"""The hash keeps the HASH_SIDE x HASH_SIDE lowest frequencies: 64 bits."""
THUMBNAIL_SIDE = 32
"""imagehash's `hash_size * highfreq_factor`."""


def thumbnail(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the (32, 32) uint8 grey thumbnail that is hashed.

    `view` is (H, W) or (H, W, 3 RGB) uint8. Grey is ITU-R 601-2 luma, the resampling Lanczos with
    antialiasing, both as Pillow computes them: another implementation would differ in some bits.
    """
    side = THUMBNAIL_SIDE
    image = Image.fromarray(np.ascontiguousarray(view)).convert("L")
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def hash_thumbnails(thumbnails: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """Return the (N,) uint64 hashes of N (32, 32) uint8 thumbnails.

    One discrete cosine transform for the batch instead of two calls an image. The transform is a
    product of two one-dimensional ones, so the high frequencies of the first axis are dropped
    before the second: the values kept do not change.
    """
    if len(thumbnails) == 0:
        return np.empty(0, np.uint64)
    pixels_nhw = np.stack(thumbnails)
    rows_nhw = scipy.fft.dct(pixels_nhw, axis=1)[:, :HASH_SIDE]
    low_nf = scipy.fft.dct(rows_nhw, axis=2)[:, :, :HASH_SIDE].reshape(-1, HASH_SIDE**2)
    bits_nf = low_nf > np.median(low_nf, axis=1, keepdims=True)
    return np.packbits(bits_nf, axis=1).view(">u8").ravel().astype(np.uint64)


def phash(view: NDArray[np.uint8]) -> int:
    """Return the hash of one 8-bit view, (H, W) or (H, W, 3), as an unsigned 64-bit number."""
    return int(hash_thumbnails([thumbnail(view)])[0])


def to_hex(value: int) -> str:
    """Return the 16 hex digits of a hash, as `str(imagehash.phash(image))` writes them."""
    return f"{value:016x}"
