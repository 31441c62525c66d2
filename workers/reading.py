"""From source bytes to prepared images, shared by training and scoring."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.plan import Blob
from schemas.reasons import RejectReason
from workers.pixels.decode import ImageFile, open_image
from workers.pixels.recipe import Recipe, apply

Image = NDArray[np.uint8]


class Preparer:
    """Decodes source bytes and applies one recipe.

    A file of several frames is opened once as long as its frames come one after the other.
    """

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        self._recipe = Recipe.from_dict(recipe)
        self._last: tuple[bytes, ImageFile] | None = None

    def prepare(self, blob: Blob, name: str, frame: int) -> Image | RejectedImage:
        """One image as uint8 (C, H, W), or why there is none; never raises for an image."""
        if isinstance(blob, RejectedImage):
            return blob
        try:
            prepared, _ = apply(self._recipe, self._open(blob, name).pixels(frame))
            channels_first = prepared[None] if prepared.ndim == 2 else prepared.transpose(2, 0, 1)
            return np.ascontiguousarray(channels_first)
        except RejectedImage as reject:
            return reject
        except MemoryError:
            return RejectedImage(RejectReason.OUT_OF_MEMORY, "while decoding")
        except Exception as error:  # noqa: BLE001 - one image never ends a shard
            return RejectedImage(RejectReason.FAILED, type(error).__name__)

    def prepare_all(
        self, blobs: Sequence[Blob], names: Sequence[str], frames: Sequence[int]
    ) -> list[Image | RejectedImage]:
        """Every image in order."""
        return [
            self.prepare(blob, name, frame)
            for blob, name, frame in zip(blobs, names, frames, strict=True)
        ]

    def _open(self, blob: bytes, name: str) -> ImageFile:
        if self._last is None or self._last[0] is not blob:
            self._last = (blob, open_image(blob, name))
        return self._last[1]
