"""`submit`: the jobs of a file on a cluster, through Ray Jobs."""

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import JsonOption, LakeOverride, OnlyOption, ProfileOption, SetOption
from cluster.cli.output import print_json, reserved_stdout, say
from cluster.cli.remote import ClusterOption, NoTokenOption, connect, detached, write
from cluster.cli.running import FileArgument

if TYPE_CHECKING:
    from cluster.lake.store import LakeStore
    from cluster.submission.client import Cluster
    from cluster.submission.record import Outcome
    from cluster.submission.submitting import Submitted
    from schemas.jobfile import JobFile


def submit(
    file: FileArgument,
    *,
    address: ClusterOption = None,
    lake: LakeOverride = None,
    profile: ProfileOption = None,
    sets: SetOption = None,
    only: OnlyOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name in the id. [default: the file's]"),
    ] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            "--working-dir",
            metavar="DIR",
            help="The folder that goes as a package, without data, images, lakes, secrets and "
            "what .gitignore names. [default: where the command runs]",
            show_default=False,
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME[=VALUE]",
            help="A variable for the job's processes, no secret; may be repeated.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow it to its end, or only submit it.")
    ] = True,
    preflight: Annotated[
        bool,
        typer.Option(
            "--preflight/--no-preflight",
            help="Ask every node first: versions, room, the lake, keys.",
        ),
    ] = True,
    night: Annotated[
        datetime | None,
        typer.Option(
            "--night",
            metavar="DATE",
            formats=["%Y-%m-%d"],
            help="The night it belongs to, which names it. [default: today in the file's time "
            "zone]",
            show_default=False,
        ),
    ] = None,
    autoscaling: Annotated[
        bool,
        typer.Option("--autoscaling", help="The cluster adds nodes; what lacks now is no mistake."),
    ] = False,
    allow_no_token: NoTokenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the jobs of a file on a Ray cluster.

    What runs already under the same name today is attached to; what failed, or the cluster has
    forgotten, is submitted as the next attempt and goes on where it stopped. Ctrl-C detaches and
    stops nothing.

    Exit codes are those of `run`, as the lake has them; 1 also if the end is uncertain.

    Example: rayward submit studies/demo.yaml --lake s3://bucket/lake --address http://127.0.0.1:8265
    """
    from schemas.jobfile import load

    job_file = load(file, profile=profile, sets=sets or (), lake=lake)

    from cluster.lake.store import LakeStore
    from cluster.submission.naming import job_name
    from cluster.submission.submitting import Wish
    from cluster.submission.submitting import submit as submit_order

    here = Path.cwd()
    wish = Wish(
        job_file,
        job_name(name or file.stem),
        here,
        (working_dir or here).absolute(),
        tuple(only or ()),
        _variables(env or ()),
        autoscaling,
        preflight,
        night.date() if night else None,
    )
    cluster = connect(address, allow_no_token)
    submitted = submit_order(cluster, wish, say)
    submission_id = submitted.submission_id
    say(f"{'Attached to' if submitted.attached else 'Submitted'} {submission_id}.")
    if not wait:
        _show_submitted(submitted, as_json=as_json)
        return
    store = LakeStore.open(job_file.lake)
    outcome = _wait_for(cluster, submitted, store, as_json=as_json)
    raise typer.Exit(_show_outcome(submission_id, outcome, job_file, only or (), as_json=as_json))


def _variables(texts: Sequence[str]) -> dict[str, str]:
    """Variables as ``--env`` gives them: ``NAME=VALUE``, or ``NAME`` with the value it has here."""
    from schemas.errors import UsageError

    values = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not name or (not given and name not in os.environ):
            raise UsageError(
                "The variable has no value", where="--env", got=text, remedy="write NAME=VALUE"
            )
        values[name] = value if given else os.environ[name]
    return values


def _show_submitted(submitted: "Submitted", *, as_json: bool) -> None:
    if as_json:
        print_json({"submission_id": submitted.submission_id, "attached": submitted.attached})
        return
    print(submitted.submission_id)
    say(f"Follow it: rayward logs -f {submitted.submission_id}")


def _wait_for(
    cluster: "Cluster", submitted: "Submitted", store: "LakeStore", *, as_json: bool
) -> "Outcome | None":
    """Follow a submission; its log goes to stdout, or to stderr where stdout is for JSON."""
    from cluster.submission.following import await_outcome, follow
    from schemas.errors import RaywardError

    try:
        try:
            if submitted.known_to_ray:
                follow(cluster, submitted.submission_id, _write_aside if as_json else write)
        except RaywardError as error:
            say(str(error))  # the lake may know nevertheless
        return await_outcome(store, submitted.submission_id)
    except KeyboardInterrupt:
        raise detached(submitted.submission_id) from None


def _show_outcome(
    submission: str,
    outcome: "Outcome | None",
    job_file: "JobFile",
    only: Sequence[str],
    *,
    as_json: bool,
) -> int:
    from cluster.cli.showing import report_object
    from cluster.runner import EXIT_FAILED, select
    from schemas.protocols import Report

    if outcome is None:
        say(
            f"{submission} did not come to an end: its driver is gone. Submit it again: "
            "it goes on where it stopped."
        )
        return EXIT_FAILED
    if as_json:
        with reserved_stdout() as stream:
            for report in outcome.reports:
                print_json(report_object(report), stream)
            ended = {report.name for report in outcome.reports}
            spec = next((one for one in select(job_file, only) if one.name not in ended), None)
            if outcome.error and spec is not None:
                failed = Report(kind=spec.kind, name=spec.name, status="failed")
                print_json(report_object(failed), stream)
    if outcome.error:
        say(outcome.error)
    say(f"{submission} ended with exit code {outcome.code}.")
    return outcome.code


def _write_aside(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
