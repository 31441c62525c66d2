"""Decoding: bytes of any supported format to facts and pixels, or a reason why not."""

from workers.pixels.decode.open import open_image
from workers.pixels.decode.types import FrameFacts, HeaderFacts, ImageFile, Limits
from workers.pixels.pixels import Pixels

__all__ = ["FrameFacts", "HeaderFacts", "ImageFile", "Limits", "Pixels", "open_image"]
