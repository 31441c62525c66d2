"""The table of runs, which says what of all others is visible."""

import pyarrow as pa

from schemas.tables.columns import TIMESTAMP, TableSchema, column, table

RUNS: tuple[TableSchema, ...] = (
    table(
        "runs",
        "a state a finished run took; the last row of a run is where it stands",
        (
            column("kind", pa.string(), "kind of job"),
            column("name", pa.string(), "the job's name"),
            column("key", pa.string(), "what the run alone may write"),
            column("spec", pa.string(), "JSON: the resolved job, secrets masked"),
            column("fingerprint", pa.string(), "hash of what determines the result"),
            column("code_version", pa.string(), "version of Rayward"),
            column("inputs", pa.string(), "JSON: version of each table read"),
            column("counts", pa.string(), "JSON: where the inputs ended"),
            column("facts", pa.string(), "JSON: findings by label"),
            column("seconds", pa.string(), "JSON: seconds by stage", "s"),
            column("cost", pa.string(), "JSON: CPU and GPU seconds", "s"),
            column("state", pa.string(), "held, published, discarded or abandoned"),
            column("recorded_at", TIMESTAMP, "when the row was written"),
        ),
        sort_by=("recorded_at",),
    ),
)
"""The last that is written."""
