"""Watching what runs: metrics, logs in JSON, and an eye on shards that stand still."""
