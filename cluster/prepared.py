"""Prepared pixels out of the lake's Parquet files, a few row groups at a time."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.storage import Storage
from schemas.plan import PreparedPixels

_PIXELS = ["image_id", "height", "width", "pixels"]


def read_prepared(
    storage: Storage, path: str, image_ids: Sequence[str]
) -> dict[str, PreparedPixels]:
    """The prepared pixels of some images in one file, by image; of those that are in it.

    A file that is gone, because its table was compacted meanwhile, holds none.
    """
    try:
        source = storage.open(path)
    except FileNotFoundError:
        return {}
    with source, pq.ParquetFile(source, pre_buffer=True) as file:
        ids = file.read(columns=["image_id"])["image_id"]
        wanted = pc.is_in(ids, value_set=pa.array(image_ids, pa.string()))
        places = np.flatnonzero(wanted.to_numpy())
        ends = np.cumsum([file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)])
        groups = np.unique(np.searchsorted(ends, places, side="right"))
        rows = file.read_row_groups(groups.tolist(), columns=_PIXELS)
    if rows.num_rows > len(places):
        rows = rows.filter(pc.is_in(rows["image_id"], value_set=ids.take(places).combine_chunks()))
    return {
        image_id: PreparedPixels(data, height, width)
        for image_id, height, width, data in zip(
            *(rows[name].to_pylist() for name in _PIXELS), strict=True
        )
    }
