"""The shards of a preparing run: a recipe carried out on every image, once."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.errors import RejectedImage
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.rejects import reject_row
from schemas.tables import rows_of
from workers.pixels.encoding import encode
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import Prepared, prepare
from workers.pixels.steps import Recipe
from workers.reading import FrameReader

PrepareImages = Callable[[Sequence[Blob], Sequence[int]], Sequence[Prepared | RejectedImage]]
"""Prepares frames of source bytes, in order, or says why there is nothing."""


def load(params: Mapping[str, Any]) -> ShardFunction:
    """Prepare the shards of a run on the CPU; `params` as `shard_function` takes them."""
    recipe = Recipe.from_dict(params["recipe"])

    def carry_out(pixels: Pixels) -> Prepared:
        return prepare(recipe, pixels)

    def prepare_images(
        blobs: Sequence[Blob], frames: Sequence[int]
    ) -> list[Prepared | RejectedImage]:
        reader = FrameReader()
        return [
            reader.read(blob, frame, carry_out) for blob, frame in zip(blobs, frames, strict=True)
        ]

    return shard_function(params, prepare_images)


def shard_function(params: Mapping[str, Any], prepare_images: PrepareImages) -> ShardFunction:
    """Make rows of `prepared` and `rejects` of what ``prepare_images`` hands back.

    `params` holds `recipe` (the fields of `Recipe`) and `subject`, for which images are rejected.
    A shard's rows have image_id, uri, frame and etag.
    """
    recipe_hash = Recipe.from_dict(params["recipe"]).hash

    def prepare_shard(rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        prepared: list[dict[str, object]] = []
        rejects: list[dict[str, object]] = []
        pixel_bytes = bars = 0
        found = prepare_images(blobs, rows["frame"].to_pylist())
        for row, image in zip(rows.to_pylist(), found, strict=True):
            if isinstance(image, RejectedImage):
                rejects.append(reject_row(row, image, stage="prepare", subject=params["subject"]))
                continue
            prepared.append(_row(row["image_id"], recipe_hash, image))
            pixel_bytes += image.array.nbytes
            bars += image.bar_share > 0
        return ShardResult(
            tables={
                "prepared": rows_of("prepared", prepared),
                "rejects": rows_of("rejects", rejects),
            },
            done=len(prepared),
            rejected=len(rejects),
            facts={"pixel bytes": pixel_bytes} | ({"scale bars removed": bars} if bars else {}),
        )

    return prepare_shard


def _row(image_id: str, recipe: str, image: Prepared) -> dict[str, object]:
    height, width = image.array.shape[:2]
    return {
        "image_id": image_id,
        "recipe": recipe,
        "height": height,
        "width": width,
        "pixels": encode(image.array),
        "geometry": json.dumps(image.geometry.to_dict()),
    }
