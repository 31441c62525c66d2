"""`status`, `publish`, `discard`: what stands of each run, and deciding on a held one."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from cluster.cli.options import JsonOption, LakeOption, lake_root
from cluster.cli.output import print_json, say

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, from `status`.")]


def status(
    lake: LakeOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Runs to show at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List runs and their progress.

    Those at work come first, with the process that holds them; then the newest. A run that was a
    slice of an archive shows how much of it its model has been through.

    Example: rayward status --limit 5
    """
    from cluster.lake.decisions import list_runs
    from cluster.lake.store import LakeStore
    from cluster.render import console, grid

    runs = list_runs(LakeStore.open(lake_root(lake)).storage, limit)
    if as_json:
        for one in runs:
            print_json(asdict(one))
        return
    if not runs:
        say("No run yet.")
        return
    headers = (
        *("run", "kind", "name", "model", "state"),
        *("inputs", "rejected", "shards", "progress", "held by"),
    )
    rows = [
        (
            one.run_id,
            one.kind,
            one.name,
            one.model,
            one.state,
            f"{one.inputs:,}",
            f"{one.rejected:,}",
            f"{one.shards_done}/{one.shards}" if one.shards else "",
            _progress(one.progress, one.deferred),
            one.holder,
        )
        for one in runs
    ]
    console(sys.stdout).print(grid(headers, rows, right=(5, 6, 7)))


def _progress(share: float | None, left: int) -> str:
    if share is None:
        return ""
    return f"{share:.1%} of the archive, {left:,} to go"


def publish(run: RunArgument, lake: LakeOption = None) -> None:
    """Make the rows of a held run visible.

    Example: rayward publish 20261121T031500123Z-score-4f2a9c
    """
    from cluster.lake.decisions import publish as publish_run
    from cluster.lake.store import LakeStore

    publish_run(LakeStore.open(lake_root(lake)).storage, run)
    say(f"Run {run} is published.")


def discard(run: RunArgument, lake: LakeOption = None) -> None:
    """Drop a held run.

    Its rows never become visible, and its images become rejects.

    Example: rayward discard 20261121T031500123Z-score-4f2a9c
    """
    from cluster.lake.decisions import discard as discard_run
    from cluster.lake.store import LakeStore

    discard_run(LakeStore.open(lake_root(lake)).storage, run)
    say(f"Run {run} is discarded; its images are rejects with the reason gate_discarded.")
