"""Prepared pixels out of the lake's Parquet files, a few row groups at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.storage import Storage, open_storage
from schemas.plan import PreparedPixels

_PIXELS = ["image_id", "height", "width", "pixels"]


@dataclass(frozen=True)
class _OpenFile:
    path: str
    file: pq.ParquetFile
    ids: pa.ChunkedArray
    ends: NDArray[np.int64]
    """Rows up to the end of each row group."""


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
        try:
            opened = self._open(path)
        except FileNotFoundError:
            return {}
        wanted = pc.is_in(opened.ids, value_set=pa.array(image_ids, pa.string()))
        places = np.flatnonzero(wanted.to_numpy())
        groups = np.unique(np.searchsorted(opened.ends, places, side="right"))
        rows = opened.file.read_row_groups(groups.tolist(), columns=_PIXELS)
        if rows.num_rows > len(places):
            ids = opened.ids.take(pa.array(places)).combine_chunks()
            rows = rows.filter(pc.is_in(rows["image_id"], value_set=ids))
        return {
            image_id: PreparedPixels(data, height, width)
            for image_id, height, width, data in zip(
                *(rows[name].to_pylist() for name in _PIXELS), strict=True
            )
        }

    def _open(self, path: str) -> _OpenFile:
        if self._last is None or self._last.path != path:
            file = pq.ParquetFile(self._storage.open(path), pre_buffer=True)
            groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
            ends = np.cumsum([one.num_rows for one in groups])
            ids = file.read(columns=["image_id"])["image_id"]
            self._last = _OpenFile(path, file, ids, ends)
        return self._last
