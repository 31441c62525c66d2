"""From source bytes to pixels and prepared images, shared by cleaning, training and scoring."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.plan import Blob
from schemas.reasons import RejectReason
from workers.pixels.decode import ImageFile, open_image
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import Recipe, apply

Image = NDArray[np.uint8]
T = TypeVar("T")


class FrameReader:
    """Decodes frames.

    A file of several frames is opened once as long as its frames come one after the other.
    """

    def __init__(self) -> None:
        self._last: tuple[bytes, ImageFile] | None = None

    def read(self, blob: Blob, frame: int, use: Callable[[Pixels], T]) -> T | RejectedImage:
        """What ``use`` makes of one frame, or why there is nothing; never raises for an image."""
        if isinstance(blob, RejectedImage):
            return blob
        try:
            if self._last is None or self._last[0] is not blob:
                self._last = (blob, open_image(blob))
            return use(self._last[1].pixels(frame))
        except RejectedImage as reject:
            return reject
        except MemoryError:
            return RejectedImage(RejectReason.OUT_OF_MEMORY, "while decoding")
        except Exception as error:  # noqa: BLE001 - one image never ends a shard
            return RejectedImage(RejectReason.FAILED, type(error).__name__)


class Preparer:
    """Decodes source bytes and applies one recipe."""

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        self._recipe = Recipe.from_dict(recipe)
        self._reader = FrameReader()

    def prepare(self, blob: Blob, frame: int) -> Image | RejectedImage:
        """One image as uint8 (C, H, W), or why there is none; never raises for an image."""
        return self._reader.read(blob, frame, self._channels_first)

    def prepare_all(
        self, blobs: Sequence[Blob], frames: Sequence[int]
    ) -> list[Image | RejectedImage]:
        """Every image in order."""
        return [self.prepare(blob, frame) for blob, frame in zip(blobs, frames, strict=True)]

    def _channels_first(self, pixels: Pixels) -> Image:
        prepared, _ = apply(self._recipe, pixels)
        channels_first = prepared[None] if prepared.ndim == 2 else prepared.transpose(2, 0, 1)
        return np.ascontiguousarray(channels_first)
