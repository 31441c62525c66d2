"""The part of scoring that can die on a bad image: decoding, without any model."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.errors import RejectedImage
from schemas.plan import Blob, ShardFunction, ShardResult
from workers.pixels.decode import open_image


def load(_params: Mapping[str, Any]) -> ShardFunction:
    """Make a function that decodes every image of a shard and keeps nothing."""
    return _probe


def _probe(rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
    done = 0
    uris, frames = rows.column("uri").to_pylist(), rows.column("frame").to_pylist()
    for blob, uri, frame in zip(blobs, uris, frames, strict=True):
        if isinstance(blob, RejectedImage):
            continue
        try:
            open_image(blob, uri).pixels(frame)
        except RejectedImage:
            continue
        done += 1
    return ShardResult({}, done=done, rejected=rows.num_rows - done)
