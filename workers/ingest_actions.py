"""What a plan of `ingest` asks for, shared by planning and by the shard function."""

from schemas.reasons import RejectReason

STAGE = "ingest"
"""The stage that rejects of ingest name."""

READ, FACTS, GONE = "read", "facts", "gone"
"""What to do with an input: read the file, write its corrected facts, or say that it is gone."""

TRANSIENT = frozenset(
    {
        RejectReason.CHANGED_DURING_RUN,
        RejectReason.GONE_DURING_RUN,
        RejectReason.UNREADABLE,
        RejectReason.OUT_OF_MEMORY,
    }
)
"""Rejects that say nothing about the bytes: the next run tries the file again."""
