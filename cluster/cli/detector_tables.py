"""Printing the tables of detectors' evaluations."""

from collections.abc import Sequence
from typing import TextIO

from cluster.cli.study_tables import print_tables
from cluster.lake.store import LakeStore
from jobs.report.detectors import all_tables, detector_notes, evaluated
from schemas.jobfile import JobFile
from schemas.specs.evaluate_detector import EvaluateDetectorSpec


def evaluations_of(job_file: JobFile, only: Sequence[str]) -> list[EvaluateDetectorSpec]:
    """The jobs of a file that evaluate detectors, or those of them that are named."""
    found = [spec for spec in job_file.jobs if isinstance(spec, EvaluateDetectorSpec)]
    return [spec for spec in found if not only or spec.name in only]


def print_evaluations(
    jobs: Sequence[EvaluateDetectorSpec], store: LakeStore, stream: TextIO, form: str
) -> None:
    """Print the tables of evaluations as the lake has them; in CSV, notes go to stderr."""
    with store.snapshot():
        found = evaluated(jobs, store)
    print_tables(all_tables(found), detector_notes(found), stream, form)
