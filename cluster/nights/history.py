"""What `runs` tells a night of a model's work: whether it caught up, what waits for a decision.

Key and fingerprint name the work: a model in a data set, in all nights alike.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from schemas.protocols import Store
from schemas.reasons import RunState


def has_caught_up(store: Store, key: tuple[str, ...], fingerprint: str) -> bool:
    """Whether a published run of some work left nothing of it for later."""
    counts = (
        json.loads(row["counts"]) for row in _runs(store, key, fingerprint, RunState.PUBLISHED)
    )
    return any(not one["deferred"] and not one["held"] for one in counts)


def waiting_runs(store: Store, key: tuple[str, ...], fingerprint: str) -> list[str]:
    """Runs of some work that wait for a person's decision, oldest first."""
    return sorted(row["run_id"] for row in _runs(store, key, fingerprint, RunState.HELD))


def gpu_seconds(store: Store, key: tuple[str, ...], run_id: str) -> float | None:
    """GPU seconds that a run cost; none where that was not measured."""
    costs = (row["cost"] for row in store.runs_of(key) if row["run_id"] == run_id)
    found = json.loads(next(costs, None) or "{}").get("gpu_s")
    return None if found is None else float(found)


def _runs(
    store: Store, key: tuple[str, ...], fingerprint: str, state: RunState
) -> Iterator[Mapping[str, Any]]:
    """Runs of some work in a state, newest first."""
    return (
        row
        for row in store.runs_of(key)
        if (row["fingerprint"], row["state"]) == (fingerprint, state)
    )
