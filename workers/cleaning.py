"""The shards of a cleaning run and the step that drops near-duplicates over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.plan import Blob, FinishFunction, ShardFunction, ShardResult
from schemas.reasons import DropReason
from schemas.rejects import reject_row
from schemas.tables import rows_of
from workers.pixels.checks import Measures, Thresholds, drop_reason, measure
from workers.pixels.hash import hash_thumbnails, thumbnail
from workers.pixels.hexes import hashes_to_hex
from workers.pixels.neighbours import keep_in_order
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import to_uint8
from workers.pixels.scale_bars import detect_scale_bars
from workers.reading import FrameReader
from workers.spreading import Spread, here

FACTS = "_facts"
KEPT_BEFORE = "_kept_before"
FACTS_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("frame", pa.int32()),
        ("phash", pa.uint64()),
        ("sharpness", pa.float32()),
        ("brightness", pa.float32()),
        ("colour_share", pa.float32()),
        ("bar_colour", pa.string()),
        ("bar_share", pa.float32()),
        ("reason", pa.string()),
    ]
)
"""What a shard stages about an image; `reason` is null where every check but that for
near-duplicates passed."""


@dataclass(frozen=True)
class Findings:
    """What cleaning saw of one image."""

    thumbnail: NDArray[np.uint8]
    """(32, 32) uint8, what the perceptual hash is made of."""
    measures: Measures
    bar_colour: str | None
    bar_share: float


def inspect(pixels: Pixels) -> Findings:
    """Look at one image as it is shown, in 8 bits."""
    view = to_uint8(pixels)
    measures = measure(view)
    colour, share = None, 0.0
    if measures.colour_share > 0:
        found = detect_scale_bars(view)
        colours = sorted({bar.colour for bar in found.bars})
        colour, share = "+".join(colours) or None, found.share
    return Findings(thumbnail(view), measures, colour, share)


def load(params: Mapping[str, Any]) -> ShardFunction:
    """Prepare the shards of a cleaning run.

    `params` holds `thresholds` (the fields of `Thresholds`) and `subject`, for which images are
    rejected. A shard's rows have image_id, uri, frame and etag.
    """
    thresholds = Thresholds(**params["thresholds"])

    def clean_shard(rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        seen: list[tuple[dict[str, Any], Findings]] = []
        rejects: list[dict[str, object]] = []
        reader = FrameReader()
        for row, blob in zip(rows.to_pylist(), blobs, strict=True):
            found = reader.read(blob, row["frame"], inspect)
            if isinstance(found, RejectedImage):
                rejects.append(reject_row(row, found, stage="clean", subject=params["subject"]))
            else:
                seen.append((row, found))
        tables = {FACTS: _facts(seen, thresholds), "rejects": rows_of("rejects", rejects)}
        return ShardResult(tables=tables, done=len(seen), rejected=len(rejects))

    return clean_shard


def load_finish(params: Mapping[str, Any], spread: Spread = here) -> FinishFunction:
    """Prepare the step that turns what the shards staged into rows of `quality`.

    `params` holds `dataset`, `recipe` and `max_distance`, null to keep near-duplicates. Images are
    walked in the order of image_id, which no path and no key changes, after those that stand in
    `_kept_before`. `spread` computes parts of a long search for them.
    """

    def finish(staged: Mapping[str, pa.Table]) -> ShardResult:
        facts = staged.get(FACTS, FACTS_SCHEMA.empty_table())
        facts = facts.sort_by("image_id")
        before = staged.get(KEPT_BEFORE)
        duplicates = _near_duplicates(facts, before, params["max_distance"], spread)
        reasons = pc.if_else(
            pc.is_valid(duplicates), DropReason.NEAR_DUPLICATE.value, facts["reason"]
        )
        quality = _quality(facts, duplicates, reasons, params)
        return ShardResult(tables={"quality": quality}, done=0, rejected=0, facts=_outcome(quality))

    return finish


def _facts(seen: Sequence[tuple[dict[str, Any], Findings]], limits: Thresholds) -> pa.Table:
    hashes = hash_thumbnails([found.thumbnail for _, found in seen])
    rows = [
        {
            "image_id": row["image_id"],
            "uri": row["uri"],
            "frame": row["frame"],
            "phash": int(phash),
            "sharpness": found.measures.sharpness,
            "brightness": found.measures.brightness,
            "colour_share": found.measures.colour_share,
            "bar_colour": found.bar_colour,
            "bar_share": found.bar_share,
            "reason": drop_reason(found.measures, limits),
        }
        for (row, found), phash in zip(seen, hashes, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=FACTS_SCHEMA)


def _near_duplicates(
    facts: pa.Table, before: pa.Table | None, distance: int | None, spread: Spread
) -> pa.Array:
    """Return the image_id that each image repeats, null for those that repeat none."""
    nothing = pa.nulls(facts.num_rows, pa.string())
    if distance is None:
        return nothing
    passed = np.flatnonzero(pc.is_null(facts["reason"]).to_numpy())
    hashes = facts["phash"].to_numpy()[passed]
    kept_ids = pa.array([], pa.string())
    kept_hashes = np.empty(0, np.uint64)
    if before is not None:
        kept_ids = before["image_id"].combine_chunks()
        kept_hashes = before["phash"].to_numpy()
    kept = keep_in_order(hashes, distance, kept_hashes, spread=spread)
    passed_ids = facts["image_id"].combine_chunks().take(pa.array(passed))
    ids = pa.concat_arrays([kept_ids, passed_ids])
    dropped = np.flatnonzero(kept.duplicate_of >= 0)
    if not len(dropped):
        return nothing
    # The place of each image's original in `ids`; null where there is none.
    places = np.full(facts.num_rows, -1, np.int64)
    places[passed[dropped]] = kept.duplicate_of[dropped]
    return ids.take(pa.array(places, mask=places < 0))


def _quality(
    facts: pa.Table, duplicates: pa.Array, reasons: pa.Array, params: Mapping[str, Any]
) -> pa.Table:
    """Return the rows of `quality`, in the order of the facts."""
    columns = {
        "image_id": facts["image_id"],
        "dataset": pa.repeat(params["dataset"], facts.num_rows),
        "recipe": pa.repeat(params["recipe"], facts.num_rows),
        "phash": hashes_to_hex(facts["phash"].to_numpy()),
        "duplicate_of": duplicates,
        "kept": pc.is_null(reasons),
        "reason": reasons,
    }
    schema = rows_of("quality", []).schema
    copied = {name: facts[name] for name in schema.names if name not in columns}
    return pa.table({**columns, **copied}).select(schema.names).cast(schema)


def _outcome(quality: pa.Table) -> dict[str, int]:
    counted = {"kept": pc.sum(quality["kept"]).as_py() or 0}
    for reason in DropReason:
        count = pc.sum(pc.equal(quality["reason"], reason.value)).as_py() or 0
        if count:
            counted[reason.value] = count
    bars = quality.num_rows - quality["bar_colour"].null_count
    return counted | ({"with scale bar": bars} if bars else {})
