"""What `runs` tells a night of a model's work: whether it caught up, what waits for a decision.

Key and fingerprint name the work: a model in a data set, in all nights alike.
"""

import json

from schemas.protocols import Store

_COUNTS = """
SELECT arg_max(counts, recorded_at) AS counts FROM runs
WHERE key = $key AND fingerprint = $fingerprint
GROUP BY run_id HAVING arg_max(state, recorded_at) = 'published'
"""
_WAITING = """
SELECT run_id FROM runs
WHERE key = $key AND fingerprint = $fingerprint
GROUP BY run_id HAVING arg_max(state, recorded_at) = 'held'
ORDER BY run_id
"""
_COST = "SELECT cost FROM runs WHERE run_id = $run_id ORDER BY recorded_at DESC LIMIT 1"


def has_caught_up(store: Store, key: tuple[str, ...], fingerprint: str) -> bool:
    """Whether a published run of some work left nothing of it for later."""
    rows = store.query(_COUNTS, {"key": "/".join(key), "fingerprint": fingerprint})
    counts = [json.loads(text) for text in rows["counts"].to_pylist()]
    return any(not one["deferred"] and not one["held"] for one in counts)


def waiting_runs(store: Store, key: tuple[str, ...], fingerprint: str) -> list[str]:
    """Runs of some work that wait for a person's decision, oldest first."""
    rows = store.query(_WAITING, {"key": "/".join(key), "fingerprint": fingerprint})
    waiting: list[str] = rows["run_id"].to_pylist()
    return waiting


def gpu_seconds(store: Store, run_id: str) -> float | None:
    """GPU seconds that a run cost; none where that was not measured."""
    rows = store.query(_COST, {"run_id": run_id})["cost"].to_pylist()
    found = json.loads(rows[0] or "{}").get("gpu_s") if rows else None
    return None if found is None else float(found)
