"""One split of a data set: made by group, image by image or taken over; and audited.

A split of a million images is arrays from end to end: parts and folds are codes, -1 for none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import LeakError, SplitError
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.tables import TABLES
from workers.assigning import Codes, Groups, assign, codes_of, gather
from workers.audits import GIVEN, MADE, Audit
from workers.balancing import keep_per_class
from workers.grouping import Indices, Links, check_group_sizes, group, link, link_among
from workers.parts import BITS, PARTS, PartBits, PartCodes, bits_of, given_parts
from workers.spreading import Spread, here

RANDOM = "random"
_TRAIN, _VAL, _TEST = range(len(PARTS))
_SCHEMA = TABLES["splits"].schema.remove(TABLES["splits"].schema.get_field_index("run_id"))


def load(params: Mapping[str, Any], spread: Spread = here) -> ShardFunction:
    """Prepare the computation of a split, which is a single shard.

    Its rows are all current images of the data set, with image_id, patient_ids, label, splits
    (the data set's own parts), copies (files with these bytes), phash (hex or null), kept, and
    part, fold and group_id where the split has them already. `params` are those of the plan of
    `jobs.split`. Only rows that the split does not have yet, or no longer so, are written. A long
    search for near-duplicates is cut into parts for `spread`.
    """

    def split_shard(rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        return _compute(rows.sort_by("image_id"), params, spread)

    return split_shard


def check(rows: pa.Table, params: Mapping[str, Any]) -> None:
    """Refuse what no split can be made of, before a run begins.

    Raises:
        SplitError: if no image is kept, a group is too large, near-duplicates are too many, a part
            has too few images of a class, or the data set gives no split to take over or one with
            parts of unknown meaning.
    """
    given = given_parts(rows)
    kept = rows["kept"].to_numpy()
    if not kept.any():
        raise SplitError(
            "There is no kept image to split",
            where=params["dataset"],
            remedy="run clean on the data set first, or loosen its limits",
        )
    if params["mode"] == GIVEN and not given.any():
        raise SplitError(
            "The data set gives no split to take over",
            where=params["dataset"],
            remedy="let ingest read the part from paths or metadata, or use mode: make",
        )
    _, links = _linked(rows, given, params["distance"], here)
    made, subset = params["mode"] not in {GIVEN, RANDOM}, "per_class" in params
    groups = group(links, int(kept.sum())) if made or subset else np.arange(0)
    if made:
        check_group_sizes(groups, links, params["max_group_share"], params["distance"])
    if subset:
        _places(rows.filter(rows["kept"]), groups, given[kept], params)


def _linked(
    rows: pa.Table, given: PartBits, distance: int, spread: Spread
) -> tuple[Links | None, Links]:
    """Return the links between all rows, if a given split is to be audited, and the kept ones'."""
    kept = rows.filter(rows["kept"])
    if not given.any():
        return None, link(kept, distance, spread)
    links = link(rows, distance, spread)
    return links, link_among(links, kept, rows["kept"].to_numpy())


def _compute(rows: pa.Table, params: Mapping[str, Any], spread: Spread) -> ShardResult:
    given, mask = given_parts(rows), rows["kept"].to_numpy()
    all_links, links = _linked(rows, given, params["distance"], spread)
    kept, given_kept = rows.filter(rows["kept"]), given[mask]
    groups = group(links, kept.num_rows)
    (parts, folds), dropped = _places(kept, groups, given_kept, params)
    made = Audit.of(MADE, kept, links, bits_of(parts))
    if params["mode"] != RANDOM:
        made.refuse(params["split_name"])
        _refuse_torn_groups(groups, folds, params["split_name"])
    audits = [made]
    if all_links is not None:
        audits.insert(0, Audit.of(GIVEN, rows, all_links, given))
    facts = {"files that repeat another's bytes": pc.sum(rows["copies"]).as_py() - rows.num_rows}
    for one in audits:
        # A split by group has no leaks, or it would not have come so far.
        if one.source == GIVEN or params["mode"] == RANDOM:
            facts.update(one.facts())
    if params["mode"] == GIVEN:
        leaking = (parts < 0) & (given_kept > 0) & ~dropped
        facts["left out because they leak"] = int(np.count_nonzero(leaking))
    if "per_class" in params:
        facts["left out beyond what per_class asks for"] = int(np.count_nonzero(dropped))
    facts["groups"] = len(np.unique(groups))
    for code in np.argsort(PARTS):
        facts[f"images in {PARTS[code]}"] = int(np.count_nonzero(parts == code))
    tables = {
        "splits": _changed(rows, mask, (parts, folds, groups), params),
        "metrics": pa.concat_tables([one.metrics(params) for one in audits]),
        "leaks": pa.concat_tables([one.named(params) for one in audits]),
    }
    return ShardResult(tables=tables, done=rows.num_rows, rejected=0, facts=facts)


def _places(
    kept: pa.Table, groups: Indices, given: PartBits, params: Mapping[str, Any]
) -> tuple[tuple[PartCodes, Codes], NDArray[np.bool_]]:
    """Return the part and the fold of each kept image, and which of them per_class left out."""
    # What goes together is a group; in a naive split, each image by itself.
    together = np.arange(kept.num_rows) if params["mode"] == RANDOM else groups
    before = np.full(kept.num_rows, -1)
    if params["keep_parts"]:
        before = _codes(kept["part"], PARTS)
    if params["mode"] == GIVEN:
        parts = _with_val(kept, groups, _without_leaks(groups, given), before, params)
    else:
        parts = _assigned_parts(kept, together, before, params)
    whole = parts
    if "per_class" in params:
        wanted, where = params["per_class"], params["split_name"]
        parts = keep_per_class(kept, parts, before, wanted, params["seed"], where)
    return (parts, _assigned_folds(kept, together, parts, params)), parts != whole


def _assigned_parts(
    kept: pa.Table, together: Indices, before: PartCodes, params: Mapping[str, Any]
) -> PartCodes:
    # Where new images join groups of different parts, the part that models learned from wins:
    # moving its images into test would test on what was trained on.
    groups, member = _gathered(kept, together, before)
    return assign(groups, [params["shares"][part] for part in PARTS], params["seed"])[member]


def _with_val(
    kept: pa.Table,
    together: Indices,
    parts: PartCodes,
    before: PartCodes,
    params: Mapping[str, Any],
) -> PartCodes:
    """Give a share of a given training part to val, by group."""
    share = params.get("val_share", 0)
    learned = np.flatnonzero(parts == _TRAIN)
    if not share or not len(learned):
        return parts
    placed = np.where(before[learned] == _TEST, -1, before[learned])
    groups, member = _gathered(kept.take(pa.array(learned)), together[learned], placed)
    dealt = parts.copy()
    dealt[learned] = assign(groups, [1 - share, share], params["seed"])[member]
    return dealt


def _assigned_folds(
    kept: pa.Table, together: Indices, parts: PartCodes, params: Mapping[str, Any]
) -> Codes:
    """Return the fold of each image outside test."""
    count, folds = params["folds"], np.full(kept.num_rows, -1)
    inside = np.flatnonzero((parts >= 0) & (parts != _TEST))
    if not count or not len(inside):
        return folds
    rows = kept.take(pa.array(inside))
    before = _folds_of(rows) if params["keep_folds"] else np.full(rows.num_rows, -1)
    groups, member = _gathered(rows, together[inside], before)
    folds[inside] = assign(groups, [1 / count] * count, params["seed"])[member]
    return folds


def _gathered(rows: pa.Table, together: Indices, before: Codes) -> tuple[Groups, Indices]:
    """Return the groups that rows form, named after their first image, and each row's group."""
    _, first, member = np.unique(together, return_index=True, return_inverse=True)
    names = rows["image_id"].combine_chunks().take(pa.array(first))
    labels, _ = codes_of(pc.fill_null(rows["label"], ""))
    return gather(names, member, labels, before), member


def _without_leaks(groups: Indices, given: PartBits) -> PartCodes:
    """Take given parts over; of a group on several sides, only test, else val, stays."""
    everywhere = np.zeros(len(groups), np.uint8)
    np.bitwise_or.at(everywhere, groups, given)
    parts = np.full(len(groups), -1)
    for place, part in enumerate(PARTS):
        # Later parts overwrite: the strongest of the group is the last one that it has.
        of_group = (everywhere[groups] & BITS[part]) > 0
        parts[of_group] = np.where((given[of_group] & BITS[part]) > 0, place, -1)
    return parts


def _refuse_torn_groups(groups: Indices, folds: Codes, split_name: str) -> None:
    inside = folds >= 0
    torn = np.unique(groups[inside][folds[inside] != _first_of(groups[inside], folds[inside])])
    if len(torn):
        raise LeakError(
            "The folds that were made leak",
            where=split_name,
            got=f"{len(torn)} groups in more than one fold",
            remedy="this is a defect of split; nothing was published; please report it",
        )


def _first_of(groups: Indices, values: Codes) -> Codes:
    """Return, for each row, the value of the first row of its group."""
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    return values[first][member]


def _changed(
    rows: pa.Table,
    kept: NDArray[np.bool_],
    places: tuple[PartCodes, Codes, Indices],
    params: Mapping[str, Any],
) -> pa.Table:
    """Return rows of `splits` where the place of an image is another than before."""
    parts, folds, groups = (np.full(rows.num_rows, -1) for _ in places)
    parts[kept], folds[kept] = places[:2]
    groups[kept] = np.flatnonzero(kept)[places[2]]
    groups[parts < 0] = -1
    ids = rows["image_id"].combine_chunks()
    names = ids.take(_nullable(groups))
    same_name = pc.fill_null(pc.equal(names, rows["group_id"].combine_chunks()), False)
    unnamed = pc.and_(pc.is_null(names), pc.is_null(rows["group_id"].combine_chunks()))
    same = pc.or_(same_name, unnamed).to_numpy(zero_copy_only=False)
    same &= parts == _codes(rows["part"], PARTS)
    same &= folds == _folds_of(rows)
    new = pa.array(np.flatnonzero(~same))
    columns = {
        "split_name": pa.repeat(params["split_name"], len(new)),
        "dataset": pa.repeat(params["dataset"], len(new)),
        "image_id": ids.take(new),
        "group_id": names.take(new),
        "fold": _nullable(folds).take(new).cast(pa.int32()),
        "part": pa.array(PARTS).take(_nullable(parts)).take(new),
    }
    return pa.Table.from_pydict(columns, schema=_SCHEMA)


def _nullable(codes: Codes) -> pa.Array:
    return pa.array(codes, mask=codes < 0)


def _folds_of(rows: pa.Table) -> Codes:
    return np.asarray(pc.fill_null(rows["fold"], -1).to_numpy(), np.int64)


def _codes(values: pa.ChunkedArray, known: Sequence[str]) -> Codes:
    """Return (N,) the index of each value in `known`, -1 for null."""
    places = pc.index_in(values, value_set=pa.array(known))
    return np.asarray(pc.fill_null(places, -1).to_numpy(), np.int64)
