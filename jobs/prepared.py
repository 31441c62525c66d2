"""Where the images of a plan lie prepared, shared by the kinds that read pixels for a model."""

import pyarrow as pa
import pyarrow.compute as pc

from schemas.protocols import Store


def where_prepared(rows: pa.Table, recipe: str, store: Store) -> pa.Table:
    """Add a column ``prepared``: the file with an image's pixels by ``recipe``, or null.

    The paths are dictionary-encoded, since hundreds of images share one. Where an image is
    prepared, ``bytes`` becomes what its pixels take: its source is not read.
    """
    found = store.prepared(recipe, rows["image_id"])
    places = pc.index_in(rows["image_id"], value_set=found["image_id"].combine_chunks())
    taken = found.take(places.combine_chunks())
    sizes = pc.coalesce(taken["bytes"], rows["bytes"])
    column = rows.column_names.index("bytes")
    return rows.set_column(column, "bytes", sizes).append_column("prepared", taken["prepared"])


def by_file(rows: pa.Table) -> pa.Table:
    """Sort rows as prepared files hold them; those that have none stay last, in their order.

    A shard then reads one or two files, and neighbouring row groups of them.
    """
    file = rows["prepared"].combine_chunks().indices
    within = pc.if_else(pc.is_valid(file), rows["image_id"].combine_chunks(), None)
    order = pc.sort_indices(
        pa.table({"file": file, "within": within}),
        sort_keys=[("file", "ascending"), ("within", "ascending")],
    )
    return rows.take(order)
