"""The part of scoring that can die on a bad image: decoding, without any model."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.errors import RejectedImage
from schemas.plan import Blob, ShardFunction, ShardResult
from workers.reading import FrameReader


def load(_params: Mapping[str, Any]) -> ShardFunction:
    """Make a function that decodes every image of a shard and keeps nothing."""
    return _probe


def _probe(rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
    reader = FrameReader()
    found = [
        reader.read(blob, frame, lambda pixels: pixels)
        for blob, frame in zip(blobs, rows.column("frame").to_pylist(), strict=True)
    ]
    done = sum(not isinstance(one, RejectedImage) for one in found)
    return ShardResult({}, done=done, rejected=rows.num_rows - done)
