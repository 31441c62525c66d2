"""Which file of a table holds an image's row."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset as pd

from cluster.lake.snapshot import LakeFile, TableSnapshot


def locate(
    table: TableSnapshot,
    files: Sequence[LakeFile],
    published: frozenset[str],
    image_ids: pa.ChunkedArray,
) -> pa.Table:
    """The one of ``files`` that holds each image's row, of those images that have a visible one.

    Columns ``image_id``, ``<table>`` (path below the lake's root, as a dictionary) and ``bytes``
    (the file's size over its rows). Only the ids are read.
    """
    code_of = {one.path: code for code, one in enumerate(files)}
    ids: list[pa.Array] = [pa.array([], pa.string())]
    codes: list[pa.Array] = [pa.array([], pa.int32())]
    if files:
        visible = pd.field("run_id").isin(pa.array(sorted(published), pa.string()))
        wanted = pd.field("image_id").isin(image_ids.combine_chunks())
        scanner = table.dataset(files).scanner(["image_id"], filter=visible & wanted)
        for part in scanner.scan_batches():
            code = pa.scalar(code_of[part.fragment.path], pa.int32())
            ids.append(part.record_batch["image_id"])
            codes.append(pa.repeat(code, part.record_batch.num_rows))
    code = pa.concat_arrays(codes)
    paths = pa.array([f"tables/{table.name}/{one.path}" for one in files], pa.string())
    sizes = pa.array([one.bytes // max(one.rows or 1, 1) for one in files], pa.int64())
    places = pa.DictionaryArray.from_arrays(code, paths)
    columns = {"image_id": pa.concat_arrays(ids), table.name: places, "bytes": sizes.take(code)}
    return pa.table(columns)
