"""`jobs`, `logs`, `stop`: the jobs of a cluster, through Ray Jobs."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import JsonOption
from cluster.cli.output import print_json, say
from cluster.cli.running import INTERRUPTED

if TYPE_CHECKING:
    from cluster.submission.client import Cluster, RayJob

_STOP_S = 60.0

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The cluster's dashboard. [default: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS, or "
        "http://127.0.0.1:8265]",
        show_default=False,
    ),
]
NoTokenOption = Annotated[
    bool,
    typer.Option(
        "--allow-no-token",
        help="Talk to a cluster beyond this machine without a token, or to one that asks for none.",
    ),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The submission, from `jobs`.")]


def jobs(
    address: ClusterOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Jobs to show at most.")] = 20,
    allow_no_token: NoTokenOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the jobs of a cluster, the newest first.

    What Ray says of a job may be wrong; how it ended stands in the lake.

    Example: rayward jobs --address http://127.0.0.1:8265
    """
    from cluster.render import console, grid

    found = connect(address, allow_no_token).jobs()[:limit]
    rows = [_described(one) for one in found]
    if as_json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        say("No job yet.")
        return
    headers = ("id", "started", "Ray says", "ended with", "lake")
    columns = ("submission_id", "started_at", "ray_status", "outcome", "lake")
    table = [[str(row[column] or "") for column in columns] for row in rows]
    console(sys.stdout).print(grid(headers, table, right=()))


def logs(
    submission: IdArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends; Ctrl-C detaches.")
    ] = False,
    address: ClusterOption = None,
    allow_no_token: NoTokenOption = False,
) -> None:
    """Print what a job wrote.

    Example: rayward logs -f demo-20261121-a1
    """
    from cluster.submission.following import follow as follow_job

    cluster = connect(address, allow_no_token)
    _known(cluster, submission)
    if not follow:
        write(cluster.logs(submission))
        return
    try:
        follow_job(cluster, submission, write)
    except KeyboardInterrupt:
        raise detached(submission) from None


def stop(
    submission: IdArgument,
    address: ClusterOption = None,
    allow_no_token: NoTokenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stop a job; what is finished of it stays finished.

    Example: rayward stop demo-20261121-a1
    """
    from schemas.errors import RunError

    cluster = connect(address, allow_no_token)
    _known(cluster, submission)
    stopped = cluster.stop(submission)
    job = cluster.wait(submission, _STOP_S)
    if job and not job.is_over:
        raise RunError("The job does not end", where=submission, remedy="try again in a minute")
    if as_json:
        print_json({"submission_id": submission, "stopped": stopped})
    elif stopped:
        say(f"Stopped {submission}. Submitted again it goes on where it stopped.")
    else:
        say(f"{submission} was not running ({job.status.value if job else 'forgotten'}).")


def connect(address: str | None, allow_no_token: bool) -> "Cluster":
    """Reach a cluster, or say why that may not be.

    Raises:
        UsageError: if it can't be reached or trusted, or there is no token for it.
    """
    from cluster.submission.access import find_access
    from cluster.submission.client import Cluster

    access = find_access(address, allow_no_token=allow_no_token)
    if access.token and access.url.startswith("http:") and not access.is_local:
        say(f"The token goes to {access.url} unencrypted: use https, or a tunnel to this machine.")
    return Cluster.reach(access, allow_no_token=allow_no_token)


def detached(submission: str) -> typer.Exit:
    """Say that a job goes on, and how to follow and to stop it."""
    say(
        f"\nDetached; {submission} goes on. Follow it: rayward logs -f {submission}. "
        f"Stop it: rayward stop {submission}"
    )
    return typer.Exit(INTERRUPTED)


def write(text: str) -> None:
    """Write a piece of a log to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _known(cluster: "Cluster", submission: str) -> "RayJob":
    from schemas.errors import UsageError

    job = cluster.job(submission)
    if job is None:
        raise UsageError(
            "The cluster knows no such job",
            got=submission,
            remedy="`rayward jobs` lists them; a cluster that lost its head forgets all, and what "
            "they did stands in the lake: `rayward status`",
        )
    return job


def _described(job: "RayJob") -> dict[str, str | int | None]:
    """A job as `jobs` tells of it."""
    from cluster.submission.client import LAKE_NOTE

    lake = job.metadata.get(LAKE_NOTE)
    code = _recorded_code(job.submission_id, lake) if lake and job.is_over else None
    if code is not None:
        outcome = f"exit code {code}"
    else:
        outcome = "uncertain" if lake and job.is_over else ""
    return {
        "submission_id": job.submission_id,
        "ray_status": job.status.value,
        "outcome": outcome,
        "exit_code": code,
        "started_at": f"{job.started_at:%Y-%m-%dT%H:%M:%SZ}" if job.started_at else None,
        "ended_at": f"{job.ended_at:%Y-%m-%dT%H:%M:%SZ}" if job.ended_at else None,
        "lake": lake,
    }


def _recorded_code(submission: str, lake: str) -> int | None:
    from cluster.lake.store import LakeStore
    from cluster.storage import STORE_ERRORS
    from cluster.submission.record import outcome_of
    from schemas.errors import RaywardError

    try:
        outcome = outcome_of(LakeStore.open(lake), submission)
    except (RaywardError, *STORE_ERRORS):
        return None  # a lake this machine can't reach
    return outcome.code if outcome else None
