"""Showing the reports of jobs as they come in."""

from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from cluster.cli.output import print_json, say
from cluster.nights.at_work import AtWork
from cluster.render import console, report_text
from schemas.protocols import Report
from schemas.specs import JobSpec


def show_reports(
    reports: Iterable[Report],
    selected: Sequence[JobSpec],
    at_work: AtWork,
    stream: TextIO,
    *,
    as_json: bool,
    below: Callable[[Report], object] = lambda _report: None,
) -> list[Report]:
    """Show each report as its job ends.

    The job at work when an error comes is named; in JSON it has its object too. ``below``
    shows what else there is to see of a job, when people read.
    """
    shown: list[Report] = []
    limits = {spec.name: spec.max_reject_share for spec in selected}
    try:
        for report in reports:
            shown.append(report)
            if as_json:
                print_json(report_object(report), stream)
                for name, why in report.failures.items():
                    say(f"{report.name}: {name} failed: {why}")
            else:
                text = report_text(report, limits[report.name])
                console(stream).print(text, soft_wrap=True)
                below(report)
    except Exception:
        if (spec := at_work.spec) is not None:
            say(f"job {spec.name} ({spec.kind}):")
            if as_json:
                failed = Report(kind=spec.kind, name=spec.name, status="failed")
                print_json(report_object(failed), stream)
        raise
    return shown


def report_object(report: Report) -> dict[str, object]:
    """A report as `--json` prints it."""
    return {
        "kind": report.kind,
        "name": report.name,
        "run_id": report.run_id,
        "status": report.status,
        "counts": report.counts.to_dict(),
        "seconds": {stage: round(seconds, 3) for stage, seconds in report.seconds.items()},
    }
