"""Marking bundles for nights: a new row of `models`, written by a run of its own."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cluster.lake.store import LakeStore
from schemas.errors import UsageError
from schemas.plan import Plan, ShardResult
from schemas.specs.score import NIGHTLY
from schemas.tables import TABLES, rows_of


def mark_nightly(store: LakeStore, reference: str, *, nightly: bool) -> Mapping[str, Any]:
    """Mark a bundle (``name``, the newest version, or ``name@version``), or take its mark away.

    Returns the bundle's row as it stands then. A bundle that is marked as asked is left as it is.

    Raises:
        BundleError: if there is no such bundle.
        LeaseHeld: if another process marks a version of it at this moment.
        UsageError: if its name stands for all marked ones in job files.
    """
    bundle = store.bundle(reference)
    if bundle["name"] == NIGHTLY:
        raise UsageError(
            "A bundle of this name can't be marked: in a job file it stands for all marked ones",
            got=reference,
            remedy="train it under another name",
        )
    if bool(bundle["nightly"]) == nightly:
        return bundle
    key = ("mark", str(bundle["name"]))
    named = f"{bundle['name']}@{bundle['version']}"
    with store.lease(key):
        store.unfinished(key, "")  # one that died half-way is abandoned: this one says it anew
        plan = Plan(
            kind="mark",
            name=named,
            key=key,
            identity={"model": named, "nightly": nightly},
            params={},
            inputs=pa.table({"model_id": [bundle["model_id"]]}),
            bounds=(0, 1),
            facts={"model": named, "nightly": nightly},
            unit="models",
        )
        run = store.begin(plan, {"model": named, "nightly": nightly})
        row = {name: bundle[name] for name in TABLES["models"].schema.names if name != "run_id"}
        marked = rows_of("models", [row | {"nightly": nightly}])
        run.record(run.pending()[0], ShardResult({"models": marked}, done=1, rejected=0))
        store.commit(run, {})
    return store.bundle(named)


def marked_bundles(store: LakeStore) -> dict[str, list[Mapping[str, Any]]]:
    """The versions that are marked for nights by bundle name, newest first.

    Each has its ``name``, ``version`` and ``model_id``.
    """
    rows = store.query(
        "SELECT name, version, model_id FROM current_models WHERE nightly"
        " ORDER BY name, version DESC"
    )
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["name"], []).append(row)
    return found
