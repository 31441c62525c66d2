"""Marked images of a training: pixels by the recipe, and boxes moved along with them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.errors import RejectedImage
from schemas.plan import Blob
from workers.detection.augmentation import Marked
from workers.detection.boxes import Boxes, has_area, to_corners, to_sizes
from workers.pixels.recipe import Geometry
from workers.reading import Placed, Preparer
from workers.training.data import Image, ImageCache, Indices
from workers.training.examples import Examples


class MarkedReader:
    """Reads images, and remembers where each one's pixels went.

    The rows of ``examples`` have ``boxes`` (x, y, width, height of each in one list, px of the
    original, upright), ``categories`` (an index for each) and ``ignored`` (a flag for each).
    """

    def __init__(self, examples: Examples, recipe: Mapping[str, Any], threads: int = 1) -> None:
        self._examples = examples
        self._side = int(recipe["size"])
        # One each: a preparer keeps the file that it has open.
        self._preparers = [Preparer(recipe) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._places: dict[int, Geometry] = {}

    def __call__(self, indices: Indices) -> list[Image | RejectedImage]:
        """Fetch, decode and prepare rows by index, as `workers.training.data` wants it."""
        taken = self._examples.rows.take(pa.array(indices))
        blobs, frames = self._examples.fetch(taken), taken.column("frame").to_pylist()
        # Neighbours stay together: they may be frames of one file.
        size = max(-(-len(blobs) // len(self._preparers)), 1)
        parts = [slice(start, start + size) for start in range(0, len(blobs), size)]
        read = self._pool.map(
            _place,
            self._preparers[: len(parts)],
            [blobs[part] for part in parts],
            [frames[part] for part in parts],
        )
        found: list[Image | RejectedImage] = []
        for row, one in zip(indices.tolist(), (one for part in read for one in part), strict=True):
            if isinstance(one, Placed):
                self._places[row] = one.geometry
                found.append(one.pixels_CHW)
            else:
                found.append(one)
        return found

    def boxes(self, row: int) -> Boxes:
        """What is marked in an image that was read, in px of the network's input.

        Cut at its edges; boxes of which nothing is in the picture are left out.
        """
        marked = self.original(row)
        moved_B4 = self._places[row].to_prepared(to_sizes(marked.corners_B4))
        corners_B4 = np.clip(to_corners(moved_B4), 0, self._side)
        return replace(marked, corners_B4=corners_B4).take(has_area(corners_B4))

    def original(self, row: int) -> Boxes:
        """What is marked in an image, in px of the original."""
        rows = self._examples.rows
        return Boxes(
            to_corners(np.asarray(rows["boxes"][row].as_py(), np.float32).reshape(-1, 4)),
            np.asarray(rows["categories"][row].as_py(), np.int64),
            np.asarray(rows["ignored"][row].as_py(), np.bool_),
        )

    def geometry(self, row: int) -> Geometry:
        """The way back from the network's input for an image that was read."""
        return self._places[row]


class MarkedImages:
    """The images of a cache with their boxes."""

    def __init__(self, cache: ImageCache, reader: MarkedReader) -> None:
        self.cache = cache
        self._reader = reader

    def __len__(self) -> int:
        return len(self.cache)

    def boxes(self, position: int) -> Boxes:
        """Boxes of the image at a position of the cache."""
        return self._reader.boxes(int(self.cache.rows[position]))

    def take(self, positions: Indices) -> list[Marked]:
        """The images at some positions of the cache, with their boxes."""
        pixels_NCSS = self.cache.images(positions)
        return [
            Marked(pixels_CSS, self.boxes(position))
            for pixels_CSS, position in zip(pixels_NCSS, positions.tolist(), strict=True)
        ]


def _place(
    preparer: Preparer, blobs: Sequence[Blob], frames: Sequence[int]
) -> list[Placed | RejectedImage]:
    return [preparer.place(blob, frame) for blob, frame in zip(blobs, frames, strict=True)]
