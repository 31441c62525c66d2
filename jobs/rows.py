"""Rows of split data sets, shared by the kinds that split, train and evaluate."""

import hashlib

import pyarrow as pa

LATEST_SPLITS = """
    SELECT * FROM splits WHERE split_name = $split
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY run_id DESC) = 1
"""
"""An image's place in a split as it stands: splitting again writes new rows."""

GROUP = "coalesce(images.patient_id, places.group_id, places.image_id)"
"""Whose image it is, for figures that treat patients as one."""


def digest_rows(rows: pa.Table, columns: tuple[str, ...]) -> str:
    """Hash the text of some columns, row by row, into 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    for batch in rows.select(columns).to_batches(max_chunksize=65_536):
        values = [column.to_pylist() for column in batch.columns]
        lines = ("\x1f".join(map(str, row)) for row in zip(*values, strict=True))
        state.update("\n".join(lines).encode())
        state.update(b"\n")
    return state.hexdigest()
