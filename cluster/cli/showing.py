"""Showing the reports of jobs as they come in."""

from collections.abc import Iterable, Sequence
from typing import TextIO

from cluster.cli.output import print_json
from cluster.render import console, report_text
from schemas.protocols import Report
from schemas.specs import JobSpec


def show_reports(
    reports: Iterable[Report], selected: Sequence[JobSpec], stream: TextIO, *, as_json: bool
) -> list[Report]:
    """Show each report as its job ends; in JSON, a job that fails has its object too."""
    shown: list[Report] = []
    limits = {spec.name: spec.max_reject_share for spec in selected}
    try:
        for report in reports:
            shown.append(report)
            if as_json:
                print_json(report_object(report), stream)
            else:
                text = report_text(report, limits[report.name])
                console(stream).print(text, soft_wrap=True)
    except Exception:
        if as_json and len(shown) < len(selected):
            spec = selected[len(shown)]
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
