"""`report`: the tables of a job file's studies, and of its evaluations of detectors."""

import sys
from typing import Annotated

import typer

from cluster.cli.options import LakeOverride, OnlyOption, ProfileOption, SetOption
from cluster.cli.running import FileArgument

FORMATS = ("table", "csv", "markdown")


def report(
    file: FileArgument,
    *,
    form: Annotated[
        str,
        typer.Option("--format", "-f", metavar="FORMAT", help="table, csv or markdown."),
    ] = "table",
    lake: LakeOverride = None,
    profile: ProfileOption = None,
    sets: SetOption = None,
    only: OnlyOption = None,
) -> None:
    """Print the tables of a file's studies, and of its evaluations of detectors.

    From the figures that the lake holds now: of each trial those of its newest evaluation. Nothing
    is computed and Ray is not started.

    Example: rayward report studies/hand-severity.yaml --profile smoke --format markdown
    """
    from schemas.errors import UsageError
    from schemas.jobfile import load

    if form not in FORMATS:
        raise UsageError(
            "There is no such format",
            where="--format",
            got=form,
            remedy=f"use one of {', '.join(FORMATS)}",
        )
    job_file = load(file, profile=profile, sets=sets or (), lake=lake)

    from cluster.cli.detector_tables import evaluations_of, print_evaluations
    from cluster.cli.study_tables import print_study, studies_of
    from cluster.lake.store import LakeStore

    evaluations = evaluations_of(job_file, only or ())
    names = {spec.name for spec in evaluations}
    others = [name for name in only or () if name not in names]
    has_study = any(spec.kind == "study" for spec in job_file.jobs)
    studies = []
    if others or not evaluations or (has_study and not only):
        studies = studies_of(job_file, others)
    store = LakeStore.open(job_file.lake)
    for study in studies:
        print_study(study, store, sys.stdout, form)
    if evaluations:
        print_evaluations(evaluations, store, sys.stdout, form)
