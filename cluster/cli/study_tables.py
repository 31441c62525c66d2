"""Printing the tables of studies."""

from collections.abc import Callable, Sequence
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.cli.output import say
from cluster.lake.store import LakeStore
from cluster.render import console, printable
from jobs.report.cells import Cell, StudyTable
from jobs.report.figures import looks, measured, trained_otherwise
from jobs.report.tables import make_table
from jobs.report.text import cell_text, comma_separated, headers, markdown, notes, study_notes
from schemas.errors import UsageError
from schemas.grids import label_of
from schemas.jobfile import JobFile
from schemas.protocols import Report
from schemas.specs.study import StudySpec


def studies_of(job_file: JobFile, only: Sequence[str]) -> list[StudySpec]:
    """The studies of a job file, or those that are named.

    Raises:
        UsageError: if there is none at all, or none of a name.
    """
    studies = {spec.name: spec for spec in job_file.jobs if isinstance(spec, StudySpec)}
    if not studies and not only:
        raise UsageError(
            "The file has no study and no `kind: evaluate_detector`, whose tables this prints",
            where=job_file.path,
        )
    unknown = [name for name in only if name not in studies]
    if unknown:
        raise UsageError(
            "The file has no such study",
            where=job_file.path,
            got=", ".join(unknown),
            remedy=f"its studies: {', '.join(studies) or 'none'}",
        )
    return [spec for name, spec in studies.items() if not only or name in only]


def print_study(study: StudySpec, store: LakeStore, stream: TextIO, form: str = "table") -> None:
    """Print the tables of a study as the lake has them; in CSV, notes go to stderr."""
    with store.snapshot():
        found = measured(study, store)
        looked = looks(study, store)
        others = trained_otherwise(study, store)
    tables = [make_table(study, table, found) for table in study.tables]
    below = [*study_notes(study, found, looked, others), *_compared(study)]
    print_tables(tables, below, stream, form)


def print_tables(
    tables: Sequence[StudyTable], below: Sequence[str], stream: TextIO, form: str
) -> None:
    """Print tables, then notes ``below``; in CSV, notes go to stderr."""
    if form == "csv":
        print("\n".join(comma_separated(table) for table in tables), end="", file=stream)
        for note in [*(note for table in tables for note in notes(table)), *below]:
            say(note)
    elif form == "markdown":
        parts = [markdown(table) for table in tables] + [f"{note}\n" for note in below]
        print("\n".join(parts), end="", file=stream)
    else:
        out = console(stream)
        for table in tables:
            _print_table(table, out)
        for note in below:
            out.print(printable(note), soft_wrap=True)


def _compared(study: StudySpec) -> list[str]:
    """What p-values of a study are of."""
    if study.against is None:
        return []
    if study.against == "best":
        whom = f"the best on the validation part by {study.choose_by} of those on the same images"
    else:
        labels = ", ".join(f"{axis}={label_of(one)}" for axis, one in study.against.items())
        whom = f"{labels}, all else equal"
    return [f"p-values (delong_p, mcnemar_p) are of paired tests against {whom}."]


def tables_below(job_file: JobFile, stream: TextIO) -> Callable[[Report], None]:
    """Make the function that prints a study's tables below its report."""

    def below(report: Report) -> None:
        for spec in job_file.jobs:
            if isinstance(spec, StudySpec) and spec.name == report.name:
                print_study(spec, LakeStore.open(job_file.lake), stream)

    return below


def _print_table(table: StudyTable, out: Console) -> None:
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, title_justify="left")
    for place, title in enumerate(headers(table)):
        shown.add_column(
            printable(title), justify="left" if place < len(table.row_axes) else "right"
        )
    before: tuple[str, ...] = ()
    for row in table.rows:
        if before and len(row.labels) > 1 and row.labels[0] != before[0]:
            shown.add_section()
        repeated = before and row.labels[:-1] == before[:-1]
        labels = (*([""] * (len(row.labels) - 1)), row.labels[-1]) if repeated else row.labels
        shown.add_row(
            *(Text(printable(label)) for label in labels),
            *(_styled(cell, is_terminal=out.is_terminal) for cell in row.cells),
            style="italic" if row.is_mean else "",
        )
        before = row.labels
    out.print(Text(printable(table.name), style="bold"))
    out.print(shown)
    for note in notes(table):
        out.print(printable(note), soft_wrap=True)
    if any(cell.is_best for row in table.rows for cell in row.cells) and not out.is_terminal:
        out.print("* Best of its column.", soft_wrap=True)
    out.print()


def _styled(cell: Cell, *, is_terminal: bool) -> Text:
    """The best in bold; where there is none to be had, with a star."""
    text = cell_text(cell)
    if not cell.is_best:
        return Text(text)
    return Text(text, style="bold") if is_terminal else Text(f"{text}*")
