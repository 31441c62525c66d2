"""`run` and `plan`: work through a job file, or say what that would do."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import JsonOption, LakeOverride, OnlyOption, ProfileOption, SetOption
from cluster.cli.output import reserved_stdout, say

if TYPE_CHECKING:
    from cluster.nights.at_work import AtWork
    from cluster.nights.night import Night
    from schemas.jobfile import JobFile
    from schemas.protocols import Report

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The job file (YAML).")]


def run(
    file: FileArgument,
    *,
    lake: LakeOverride = None,
    profile: ProfileOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="ADDR",
            help="A Ray cluster to run on. [default: $RAY_ADDRESS, or an embedded Ray]",
            show_default=False,
        ),
    ] = None,
    sets: SetOption = None,
    only: OnlyOption = None,
    night: Annotated[
        datetime | None,
        typer.Option(
            "--night",
            metavar="DATE",
            formats=["%Y-%m-%d"],
            help="The night that runs are filed under. [default: today in the file's time zone]",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the jobs of a file in order.

    What is done already is not done again; a run that was interrupted goes on.

    Exit codes: 0 all done; 1 a job failed, later ones did not run; 2 the file or the command is
    wrong; 3 done, but with more rejects than a job allows; 4 held by the publish gate; 5 another
    run holds the same work.

    Example: rayward run studies/demo.yaml --set train.epochs=2
    """
    from schemas.jobfile import load

    job_file = load(file, profile=profile, sets=sets or (), lake=lake)

    from cluster.cli.showing import show_reports
    from cluster.cli.study_tables import tables_below
    from cluster.nights.at_work import AtWork
    from cluster.nights.night import Night
    from cluster.progress import Progress
    from cluster.runner import exit_code, run_jobs, select

    selected = select(job_file, only or ())
    at_work = AtWork(selected[0])
    tonight = Night.begin(job_file.night, night.date() if night else None)
    progress = Progress(sys.stderr, quiet=as_json)
    try:
        with ExitStack() as stack:
            stream = stack.enter_context(reserved_stdout()) if as_json else sys.stdout
            stack.callback(progress.finish)
            found = run_jobs(
                job_file,
                only=only or (),
                address=address,
                progress=progress,
                night=tonight,
                at_work=at_work,
            )
            told = _told(found, job_file, at_work, tonight)
            below = tables_below(job_file, stream)
            reports = show_reports(told, selected, at_work, stream, as_json=as_json, below=below)
    except KeyboardInterrupt:
        say("\nInterrupted. The same command goes on where this run stopped.")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(exit_code(reports, job_file))


def _told(
    reports: "Iterator[Report]", job_file: "JobFile", at_work: "AtWork", night: "Night"
) -> "Iterator[Report]":
    """The same reports; whom the file names is told of those that need a person."""
    if job_file.notify is None:
        return reports
    from cluster.nights.notifying import messenger
    from cluster.nights.watching import watched

    notifier = messenger(job_file.notify, night=night.date, lake=job_file.lake, warn=say)
    return watched(reports, at_work, night, notifier)


def plan(
    file: FileArgument,
    *,
    lake: LakeOverride = None,
    profile: ProfileOption = None,
    sets: SetOption = None,
    only: OnlyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what each job of a file would do.

    Reads no pixels, writes nothing, starts no Ray.

    Example: rayward plan studies/demo.yaml
    """
    from schemas.jobfile import load

    job_file = load(file, profile=profile, sets=sets or (), lake=lake)

    from cluster.cli.showing import show_reports
    from cluster.nights.at_work import AtWork
    from cluster.runner import plan_jobs, select

    selected = select(job_file, only or ())
    at_work = AtWork(selected[0])
    planned = plan_jobs(job_file, only or (), at_work)
    show_reports(planned, selected, at_work, sys.stdout, as_json=as_json)
