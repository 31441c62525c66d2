"""Tables of a study as text: cells, notes, Markdown and CSV."""

import csv
import io
from collections.abc import Iterator, Sequence

from jobs.report.cells import Cell, Choice, Row, StudyTable
from jobs.report.figures import Looks
from jobs.report.outcomes import Measured
from schemas.specs.study import StudySpec

GAP = "-"
CHOSEN = "†"
"""Marks the cells of the setting that the validation part chose."""
_NAMED = 10
"""Missing trials that are named; of more, the rest is counted."""


def cell_text(cell: Cell) -> str:
    """A cell: ``0.912 [0.880, 0.941]``, with the trials it rests on where some are missing."""
    if cell.value is None:
        return GAP
    text = f"{cell.value:.3f}"
    if cell.low is not None and cell.high is not None:
        text += f" [{cell.low:.3f}, {cell.high:.3f}]"
    if cell.trials < cell.expected:
        text += f" ({cell.trials} of {cell.expected})"
    return text + (CHOSEN if cell.is_chosen else "")


def headers(table: StudyTable) -> list[str]:
    """Titles of all columns, those of the rows' labels first."""
    return [*table.row_axes, *(" ".join(labels) for labels in table.columns)]


def notes(table: StudyTable) -> list[str]:
    """What a reader of the table needs to know."""
    told = []
    trials = {cell.trials for row in table.rows for cell in row.cells}
    if any(count > 1 for count in trials):
        told.append(
            "Medians over trials, with the smallest and the largest of them."
            if table.statistic == "median"
            else "Means over trials, with the 95 % interval of Student's t over them."
        )
    if 1 in trials:
        told.append("Of a single trial: the 95 % interval of a bootstrap over patients, if any.")
    told += [_chosen(table, choice) for choice in table.choices]
    return told


def _chosen(table: StudyTable, choice: Choice) -> str:
    setting = ", ".join(f"{axis}={label}" for axis, label in choice.labels.items())
    of = f", {table.statistic} of {choice.trials} trials" if choice.trials > 1 else ""
    figures = ", ".join(f"{what} {cell_text(cell)}" for what, cell in choice.figures)
    return (
        f"{CHOSEN} Best on the validation part by {choice.metric} ({choice.value:.3f}{of}): "
        f"{setting}. Part {table.part}: {figures}."
    )


def study_notes(
    study: StudySpec,
    found: Sequence[Measured],
    looked: Sequence[Looks],
    others: Sequence[str],
) -> list[str]:
    """What holds for all tables of a study: what is missing, and how often it was looked."""
    missing = [one.outcome.text for one in found if not one.figures]
    told = []
    if missing:
        told.append(f"No figures of {len(missing)} of {len(found)}: {_named(missing)}.")
    if others:
        told.append(f"Settings differ from the file's in {len(others)} trials: {_named(others)}.")
    for look in looked:
        what = "Held-out folds" if look.folds else "The test part"
        told.append(
            f"{what} of {look.split}: looked at by {look.every} evaluations, "
            f"{look.ours} of them of {study.name}."
        )
    return told


def _named(trials: Sequence[str]) -> str:
    more = f"; and {len(trials) - _NAMED} more" if len(trials) > _NAMED else ""
    return "; ".join(trials[:_NAMED]) + more


def markdown(table: StudyTable) -> str:
    """The table in Markdown, the best of each column in bold, its notes below."""
    titles = headers(table)
    rule = ["---"] * len(table.row_axes) + ["---:"] * len(table.columns)
    lines = [f"### {_escaped(table.name)}", "", _line(titles), _line(rule)]
    lines += [_line([*row.labels, *(_bold(cell) for cell in row.cells)]) for row in table.rows]
    for note in notes(table):
        lines += ["", _escaped(note)]
    return "\n".join(lines) + "\n"


def _bold(cell: Cell) -> str:
    text = cell_text(cell)
    return f"**{text}**" if cell.is_best else text


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def comma_separated(table: StudyTable) -> str:
    """The table as CSV: the shown columns, each followed by its interval and its trials.

    The first column names the table; marks say ``best`` and ``chosen``.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    titles = headers(table)[len(table.row_axes) :]
    parts = ("", " low", " high", " trials", " marks")
    writer.writerow(
        ["table", *table.row_axes, *(title + part for title in titles for part in parts)]
    )
    for row in table.rows:
        writer.writerow([table.name, *row.labels, *_values(row)])
    return stream.getvalue()


def _values(row: Row) -> Iterator[str]:
    for cell in row.cells:
        for value in (cell.value, cell.low, cell.high):
            yield "" if value is None else f"{value:.6g}"
        yield str(cell.trials)
        marks = {"best": cell.is_best, "chosen": cell.is_chosen}
        yield " ".join(name for name, marked in marks.items() if marked)
