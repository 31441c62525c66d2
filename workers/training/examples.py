"""The images of a training by part, and how they are read."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.plan import Blob
from workers.reading import Preparer
from workers.training.data import Image, Indices, ReadImages

Fetch = Callable[[pa.Table], Sequence[Blob]]
"""Source bytes of some rows of the plan, or why they can't be had."""


@dataclass(frozen=True)
class Examples:
    """The rows of a training's plan: ``image_id``, ``uri``, ``frame``, ``part``, ``label``."""

    rows: pa.Table
    fetch: Fetch

    def of_part(self, part: str) -> Indices:
        """Indices of the rows of a part, in order."""
        parts = np.asarray(self.rows.column("part").to_pylist(), dtype=object)
        return np.flatnonzero(parts == part).astype(np.int64)

    def targets(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Index of each row's label within ``classes``."""
        index = {name: position for position, name in enumerate(classes)}
        return np.asarray([index[name] for name in self.rows.column("label").to_pylist()], np.int64)

    def cheapest_order(self, rows: Indices) -> Indices | None:
        """Positions within ``rows`` as prepared files hold them, one file after the other."""
        if "prepared" not in self.rows.column_names:
            return None
        taken = self.rows.select(["prepared", "image_id"]).take(pa.array(rows))
        files = taken["prepared"].cast(pa.string())
        order = pc.sort_indices(
            pa.table({"file": files, "image_id": taken["image_id"]}),
            sort_keys=[("file", "ascending"), ("image_id", "ascending")],
        )
        places: Indices = order.to_numpy().astype(np.int64)
        return places

    def reader(self, recipe: Mapping[str, Any], threads: int = 1) -> ReadImages:
        """Fetch, decode and prepare rows by index; ``threads`` share the decoding."""
        # One each: a preparer keeps the file that it has open.
        preparers = [Preparer(recipe) for _ in range(threads)]
        pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

        def read(indices: Indices) -> list[Image | RejectedImage]:
            taken = self.rows.take(pa.array(indices))
            blobs, frames = self.fetch(taken), taken.column("frame").to_pylist()
            if threads == 1:
                return preparers[0].prepare_all(blobs, frames)
            # Neighbours stay together: they may be frames of one file.
            size = max(-(-len(blobs) // threads), 1)
            parts = [slice(start, start + size) for start in range(0, len(blobs), size)]
            found = pool.map(
                lambda preparer, part: preparer.prepare_all(blobs[part], frames[part]),
                preparers[: len(parts)],
                parts,
            )
            return [image for images in found for image in images]

        return read
