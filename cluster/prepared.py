"""Prepared pixels out of the lake's Parquet files, a few row groups at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.storage import Storage, open_storage
from schemas.plan import PreparedPixels

_PIXELS = ["image_id", "height", "width", "pixels", "geometry"]
_AFTER_ALL_IDS = "~"
"""Ids are hexadecimal digits."""


@dataclass(frozen=True)
class _OpenFile:
    path: str
    file: pq.ParquetFile
    lows: pa.Array
    """The smallest image id of each row group."""
    highs: pa.Array
    """The largest."""


class PreparedReader:
    """Reads prepared pixels; the last file stays open, since the next rows often lie in it.

    A reader travels to other processes as long as it has read nothing.
    """

    def __init__(self, lake: str) -> None:
        self._lake = lake
        self._last: _OpenFile | None = None

    @cached_property
    def _storage(self) -> Storage:
        return open_storage(self._lake)

    def read(self, path: str, image_ids: Sequence[str]) -> dict[str, PreparedPixels]:
        """The pixels of some images in one file, by image; of those that are in it.

        A file that is gone, because its table was compacted meanwhile, holds none.
        """
        wanted = pa.array(image_ids, pa.string())
        try:
            opened = self._open(path)
            rows = opened.file.read_row_groups(_groups_with(opened, wanted), columns=_PIXELS)
        except FileNotFoundError:
            return {}
        asked = pc.is_in(rows["image_id"], value_set=wanted)
        if not pc.all(asked).as_py():  # pixels are not copied for nothing
            rows = rows.filter(asked)
        return {
            image_id: PreparedPixels(data, height, width, geometry)
            for image_id, height, width, data, geometry in zip(
                *(rows[name].to_pylist() for name in _PIXELS), strict=True
            )
        }

    def _open(self, path: str) -> _OpenFile:
        if self._last is None or self._last.path != path:
            file = pq.ParquetFile(self._storage.open(path), pre_buffer=True)
            self._last = _OpenFile(path, file, *_bounds(file))
        return self._last


def _bounds(file: pq.ParquetFile) -> tuple[pa.Array, pa.Array]:
    """The smallest and the largest image id of each row group, off the footer."""
    described = file.metadata
    column = file.schema_arrow.names.index("image_id")
    lows, highs = [], []
    for number in range(described.num_row_groups):
        found = described.row_group(number).column(column).statistics
        known = found is not None and found.has_min_max
        lows.append(found.min if known else "")
        highs.append(found.max if known else _AFTER_ALL_IDS)
    return pa.array(lows, pa.string()), pa.array(highs, pa.string())


def _groups_with(opened: _OpenFile, image_ids: pa.Array) -> list[int]:
    """The row groups that may hold one of the images.

    Rows stand in the order of their ids, at least those of one run, so few others are among them.
    """
    ids = np.sort(image_ids.to_numpy(zero_copy_only=False).astype(str))
    lows, highs = (
        one.to_numpy(zero_copy_only=False).astype(str) for one in (opened.lows, opened.highs)
    )
    # The first wanted id that is not below the group's smallest must not be above its largest.
    first = np.searchsorted(ids, lows, side="left")
    after = np.searchsorted(ids, highs, side="right")
    return np.flatnonzero(first < after).tolist()
