"""A subset of a split with as many images of each label as are asked for."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import SplitError
from workers.assigning import codes_of, draws
from workers.parts import PARTS, PartCodes


def keep_per_class(
    rows: pa.Table,
    parts: PartCodes,
    before: PartCodes,
    wanted: Mapping[str, int],
    seed: int,
    where: str,
) -> PartCodes:
    """Return `parts` with `wanted` images of each label in each part that it names, none beyond.

    `rows` has image_id and label; `parts` (N,) is where images stand and `before` (N,) where they
    stood in an earlier subset, -1 for nowhere. Images that were chosen before are chosen again;
    the others come in an order drawn from `seed` and their ids. So images that are added later
    displace none. Images without a label are of no class, and so are left out.

    Raises:
        SplitError: naming every part and label that has too few images; `where` names the split.
    """
    labels, names = codes_of(rows["label"])
    kept, short = parts.copy(), []
    for part, count in wanted.items():
        code = PARTS.index(part)
        kept[parts == code] = -1
        for label, name in enumerate(names.to_pylist()):
            here = np.flatnonzero((parts == code) & (labels == label))
            if len(here) < count:
                short.append(f"{len(here):,} of {count:,} images of {name} in {part}")
            ids = rows["image_id"].combine_chunks().take(pa.array(here))
            order = np.lexsort((draws(ids, f"{seed}:subset:"), before[here] != code))
            kept[here[order[:count]]] = code
    if short:
        raise SplitError(
            "A part has too few images of a class",
            where=where,
            got=", ".join(short),
            remedy=f"ask for fewer in per_class, or set the shares of parts to fit: there are "
            f"{_totals(rows)} in all",
        )
    return kept


def _totals(rows: pa.Table) -> str:
    counted = pc.value_counts(rows["label"].drop_null()).to_pylist()
    known = sorted((one["values"], one["counts"]) for one in counted)
    return ", ".join(f"{count:,} images of {name}" for name, count in known)
