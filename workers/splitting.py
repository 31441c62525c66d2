"""One split of a data set: made by group, or taken over from the data set, and audited."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import LeakError, SplitError
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.tables import rows_of
from workers.assigning import Group, assign
from workers.grouping import Indices, check_group_sizes, group, link, parts_of
from workers.leaks import PARTS, Leak, find_leaks, part_bits

MADE, GIVEN = "made", "given"


def load(params: Mapping[str, Any]) -> ShardFunction:
    """Prepare the computation of a split, which is a single shard.

    Its rows are all current images of the data set, with image_id, patient_ids, label, splits
    (the data set's own parts), copies (files with these bytes), phash (hex or null), kept, and
    part, fold and group_id where the split has them already. `params` are those of the plan of
    `jobs.split`. Only rows that the split does not have yet, or no longer so, are written.
    """

    def split_shard(rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        places, facts, metrics = _compute(rows, params)
        tables = {
            "splits": _changed(rows, places, params["split_name"]),
            "metrics": rows_of("metrics", metrics),
        }
        return ShardResult(tables=tables, done=rows.num_rows, rejected=0, facts=facts)

    return split_shard


def check(rows: pa.Table, params: Mapping[str, Any]) -> None:
    """Refuse what no split can be made of, before a run begins.

    Raises:
        SplitError: if no image is kept, a group is too large, near-duplicates are too many, or
            the data set gives no split to take over or one with parts of unknown meaning.
    """
    kept = rows.filter(rows["kept"])
    if not kept.num_rows:
        raise SplitError(
            "There is no kept image to split",
            where=params["dataset"],
            remedy="run clean on the data set first, or loosen its limits",
        )
    given = _given_parts(rows)
    if params["mode"] == GIVEN and not any(given):
        raise SplitError(
            "The data set gives no split to take over",
            where=params["dataset"],
            remedy="let ingest read the part from paths or metadata, or use mode: make",
        )
    if any(given):
        link(rows, params["distance"])
    if params["mode"] != GIVEN:
        links = link(kept, params["distance"])
        groups = group(links, kept.num_rows)
        check_group_sizes(groups, links, params["max_group_share"], params["distance"])


Place = tuple[str | None, int | None, str | None]
"""Part, fold and group_id of an image; no part for one that the split leaves out."""


def _compute(
    rows: pa.Table, params: Mapping[str, Any]
) -> tuple[list[Place], dict[str, int | float], list[dict[str, object]]]:
    """Return the place of each row, figures for the user, and rows of `metrics`."""
    given = _given_parts(rows)
    facts: dict[str, int | float] = {}
    metrics: list[dict[str, object]] = []
    facts["files that repeat another's bytes"] = int(pc.sum(rows["copies"]).as_py()) - len(given)
    if any(given):
        audit = list(find_leaks(rows, link(rows, params["distance"]), part_bits(given)))
        facts.update(_leak_facts(audit))
        metrics.extend(_leak_metrics(audit, GIVEN, params))
    at = np.flatnonzero(rows["kept"].to_numpy())
    kept = rows.take(pa.array(at))
    links = link(kept, params["distance"])
    groups = group(links, kept.num_rows)
    names = _group_names(kept, groups)
    if params["mode"] == GIVEN:
        own = [given[row] for row in at]
        parts = _without_leaks(groups, own)
        facts["left out because they leak"] = sum(
            part is None and bool(some) for part, some in zip(parts, own, strict=True)
        )
    else:
        parts = _assigned_parts(kept, groups, names, params)
    folds = _assigned_folds(kept, names, parts, params)
    made = [frozenset(() if part is None else (part,)) for part in parts]
    audit = list(find_leaks(kept, links, part_bits(made)))
    _refuse_leaks(audit, params["split_name"])
    metrics.extend(_leak_metrics(audit, MADE, params))
    facts["groups"] = len(set(names))
    facts.update(
        {f"images in {part}": count for part, count in sorted(Counter(filter(None, parts)).items())}
    )
    places: list[Place] = [(None, None, None)] * rows.num_rows
    for row, part, fold, name in zip(at, parts, folds, names, strict=True):
        places[row] = (part, fold, name) if part is not None else (None, None, None)
    return places, facts, metrics


def _given_parts(rows: pa.Table) -> list[frozenset[str]]:
    return [parts_of(names or ()) for names in rows["splits"].to_pylist()]


def _group_names(kept: pa.Table, groups: Indices) -> list[str]:
    """Name each row's group: as an earlier split did, else after its first image_id."""
    named: dict[int, str] = {}
    first: dict[int, str] = {}
    columns = (groups.tolist(), kept["group_id"].to_pylist(), kept["image_id"].to_pylist())
    for member, before, image_id in zip(*columns, strict=True):
        first[member] = min(first.get(member, image_id), image_id)
        if before is not None:
            named[member] = min(named.get(member, before), before)
    return [named.get(member, first[member]) for member in groups.tolist()]


def _assigned_parts(
    kept: pa.Table, groups: Indices, names: list[str], params: Mapping[str, Any]
) -> list[str | None]:
    before = kept["part"].to_pylist() if params["keep_places"] else [None] * kept.num_rows
    # Where new images join groups of different parts, the part that models learned from wins:
    # moving its images into test would test on what was trained on.
    places = assign(_labelled(kept, names, before, PARTS), params["shares"], params["seed"])
    return [places[name] for name in names]


def _assigned_folds(
    kept: pa.Table, names: list[str], parts: Sequence[str | None], params: Mapping[str, Any]
) -> list[int | None]:
    count = params["folds"]
    if not count:
        return [None] * kept.num_rows
    before = kept["fold"].to_pylist() if params["keep_places"] else [None] * kept.num_rows
    inside = [row for row, part in enumerate(parts) if part in {"train", "val"}]
    folds = [str(fold) for fold in range(count)]
    groups = _labelled(
        kept.take(pa.array(inside, pa.int64())),
        [names[row] for row in inside],
        [None if before[row] is None else str(before[row]) for row in inside],
        folds,
    )
    places = assign(groups, dict.fromkeys(folds, 1 / count), params["seed"])
    chosen: list[int | None] = [None] * kept.num_rows
    for row in inside:
        chosen[row] = int(places[names[row]])
    return chosen


def _labelled(
    rows: pa.Table, names: Sequence[str], before: Sequence[str | None], order: Sequence[str]
) -> list[Group]:
    """Return the groups with their labels, and the first in `order` of their places before."""
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    places: dict[str, set[str]] = defaultdict(set)
    for name, label, place in zip(names, rows["label"].to_pylist(), before, strict=True):
        labels[name][label or ""] += 1
        if place is not None:
            places[name].add(place)
    return [
        Group(name, counts, min(places[name], key=order.index) if places[name] else None)
        for name, counts in labels.items()
    ]


def _without_leaks(groups: Indices, given: Sequence[frozenset[str]]) -> list[str | None]:
    """Take given parts over; of a group on several sides, only test, else val, stays."""
    strongest: dict[int, int] = {}
    rank = {part: place for place, part in enumerate(PARTS)}
    for member, parts in zip(groups.tolist(), given, strict=True):
        for part in parts:
            strongest[member] = max(strongest.get(member, 0), rank[part])
    return [
        PARTS[strongest[member]] if parts and PARTS[strongest[member]] in parts else None
        for member, parts in zip(groups.tolist(), given, strict=True)
    ]


def _changed(rows: pa.Table, places: Sequence[Place], split_name: str) -> pa.Table:
    before = zip(
        rows["part"].to_pylist(),
        rows["fold"].to_pylist(),
        rows["group_id"].to_pylist(),
        strict=True,
    )
    return rows_of(
        "splits",
        [
            {
                "split_name": split_name,
                "image_id": image_id,
                "part": new[0],
                "fold": new[1],
                "group_id": new[2],
            }
            for image_id, old, new in zip(rows["image_id"].to_pylist(), before, places, strict=True)
            if old != new
        ],
    )


def _leak_facts(audit: Sequence[Leak]) -> Iterator[tuple[str, int]]:
    for leak in audit:
        where = f"in {leak.first} and {leak.second} as given"
        yield f"patients {where}", leak.patients
        yield f"images {where}", leak.images
        yield f"near-duplicates {where}", leak.near_duplicates


def _leak_metrics(
    audit: Sequence[Leak], source: str, params: Mapping[str, Any]
) -> Iterator[dict[str, object]]:
    for leak in audit:
        for metric in ("patients", "images", "near_duplicates"):
            yield {
                "study": params["split_name"],
                "dataset": params["dataset"],
                "part": f"{leak.first}|{leak.second}",
                "subgroup": "",
                "metric": f"leak_{metric}",
                "category": source,
                "value": float(getattr(leak, metric)),
                "n": leak.second_size,
            }


def _refuse_leaks(audit: Sequence[Leak], split_name: str) -> None:
    for leak in audit:
        if leak.any:
            raise LeakError(
                "The split that was made leaks",
                where=f"{split_name}: {leak.first} and {leak.second}",
                got=(
                    f"{leak.patients} patients, {leak.images} images and "
                    f"{leak.near_duplicates} near-duplicates on both sides"
                ),
                remedy="this is a defect of split; nothing was published; please report it",
            )
