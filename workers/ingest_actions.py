"""What a plan of `ingest` asks for, shared by planning and by the shard function."""

STAGE = "ingest"
"""The stage that rejects of ingest name."""

READ, FACTS, GONE = "read", "facts", "gone"
"""What to do with an input: read the file, write its corrected facts, or say that it is gone."""
