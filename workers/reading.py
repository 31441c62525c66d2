"""From source bytes to pixels and prepared images, shared by cleaning, training and scoring."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.plan import Blob, PreparedPixels
from schemas.reasons import RejectReason
from workers.pixels.decode import ImageFile, open_image
from workers.pixels.encoding import decode
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import Geometry, Recipe, apply
from workers.pixels.steps import require_cpu
from workers.stages import Stage, during

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
            with during(Stage.DECODE):
                pixels = self._pixels(blob, frame)
            return use(pixels)
        except RejectedImage as reject:
            return reject
        except MemoryError:
            return RejectedImage(RejectReason.OUT_OF_MEMORY, "while decoding")
        except Exception as error:  # noqa: BLE001 - one image never ends a shard
            return RejectedImage(RejectReason.FAILED, type(error).__name__)

    def _pixels(self, blob: bytes | PreparedPixels, frame: int) -> Pixels:
        if isinstance(blob, PreparedPixels):
            view = decode(blob.data, blob.height, blob.width)
            return Pixels(view, 8, window=None, inverted=False, spacing_mm=None)
        if self._last is None or self._last[0] is not blob:
            self._last = (blob, open_image(blob))
        return self._last[1].pixels(frame)


@dataclass(frozen=True)
class Placed:
    """A prepared image, and the way back to the original's pixels."""

    pixels_CHW: Image
    geometry: Geometry


class Preparer:
    """Decodes source bytes and applies one recipe."""

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        self._recipe = Recipe.from_dict(recipe)
        self._reader = FrameReader()

    def prepare(self, blob: Blob, frame: int) -> Image | RejectedImage:
        """One image as uint8 (C, H, W), or why there is none; never raises for an image.

        A blob of prepared pixels went through this recipe already.

        Raises:
            RunError: for source bytes, if the recipe's pixels are made on a GPU.
        """
        if isinstance(blob, bytes):
            require_cpu(self._recipe)
        ready = isinstance(blob, PreparedPixels)
        return self._reader.read(blob, frame, _as_it_is if ready else self._carry_out)

    def place(self, blob: Blob, frame: int) -> Placed | RejectedImage:
        """Like `prepare`, with the way back to the pixels of the original, upright.

        Raises:
            RunError: for source bytes, if the recipe's pixels are made on a GPU.
        """
        if isinstance(blob, bytes):
            require_cpu(self._recipe)
        if not isinstance(blob, PreparedPixels):
            return self._reader.read(blob, frame, self._carry_out_placed)
        geometry = Geometry.from_dict(json.loads(blob.geometry))
        return self._reader.read(blob, frame, lambda pixels: Placed(_as_it_is(pixels), geometry))

    def prepare_all(
        self, blobs: Sequence[Blob], frames: Sequence[int]
    ) -> list[Image | RejectedImage]:
        """Every image in order."""
        return [self.prepare(blob, frame) for blob, frame in zip(blobs, frames, strict=True)]

    def _carry_out(self, pixels: Pixels) -> Image:
        return self._carry_out_placed(pixels).pixels_CHW

    def _carry_out_placed(self, pixels: Pixels) -> Placed:
        prepared, geometry = apply(self._recipe, pixels)
        return Placed(_channels_first(prepared), geometry)


def _as_it_is(pixels: Pixels) -> Image:
    return _channels_first(pixels.array)


def _channels_first(view: NDArray[Any]) -> Image:
    return np.ascontiguousarray(view[None] if view.ndim == 2 else view.transpose(2, 0, 1))
