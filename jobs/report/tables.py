"""Tables over a study's trials: every cell a figure, or the mean or median of several."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.report.cells import Cell, Choice, Labels, Row, StudyTable
from jobs.report.outcomes import Measured
from jobs.report.shown import Shown, rank
from schemas.metricnames import UNRANKED
from schemas.specs.study import StudySpec
from schemas.specs.study_table import METRIC, SUBGROUP, Table


def make_table(study: StudySpec, table: Table, found: Sequence[Measured]) -> StudyTable:
    """Fill a table of a study with the figures of its outcomes."""
    shown = Shown(study, table, found)
    columns = shown.places(table.columns)
    rows = [
        Row(tuple(place.values()), tuple(shown.cell({**place, **column}) for column in columns))
        for place in shown.places(table.rows)
    ]
    places = [{**row, **column} for row in shown.places(table.rows) for column in columns]
    choices = tuple(
        replace(
            choice,
            figures=tuple(
                (_what(table, place), shown.cell(place))
                for place in places
                if shown.setting(place) == choice.labels
            ),
        )
        for choice in shown.choices()
    )
    marked = _mark_best(shown, table, rows, columns)
    return StudyTable(
        name=table.name,
        row_axes=table.rows,
        columns=tuple(tuple(column.values()) for column in columns),
        rows=tuple(
            _with_means(shown, table, _mark_chosen(shown, table, marked, columns, choices), columns)
        ),
        part=table.part,
        statistic=table.statistic,
        choices=choices,
    )


def _mark_best(
    shown: Shown, table: Table, rows: Sequence[Row], columns: Sequence[Labels]
) -> list[Row]:
    """Mark the best cell of each column; of each row, where metrics are rows.

    Cells of other images, as of another split, are not compared.
    """
    places = shown.places(table.rows)
    best: dict[tuple[Any, ...], float] = {}
    counts: dict[tuple[Any, ...], int] = {}

    def group(row: int, column: int) -> tuple[tuple[Any, ...], str]:
        place = {**places[row], **columns[column]}
        metric = shown.metric(place)
        line = row if METRIC in table.rows else column
        return (line, metric, *shown.same_images(place)), metric

    for row, column in itertools.product(range(len(rows)), range(len(columns))):
        value = rows[row].cells[column].value
        if value is not None:
            key, metric = group(row, column)
            counts[key] = counts.get(key, 0) + 1
            best[key] = max(best.get(key, -math.inf), rank(metric, value))

    def is_best(row: int, column: int, cell: Cell) -> bool:
        key, metric = group(row, column)
        place = {**places[row], **columns[column]}
        ranked = cell.value is not None and metric.partition("/")[0] not in UNRANKED
        return (
            ranked
            and not shown.is_difference(place)
            and counts[key] > 1
            and rank(metric, cell.value or 0.0) == best[key]
        )

    return [
        replace(
            row,
            cells=tuple(
                replace(cell, is_best=is_best(number, column, cell))
                for column, cell in enumerate(row.cells)
            ),
        )
        for number, row in enumerate(rows)
    ]


def _mark_chosen(
    shown: Shown,
    table: Table,
    rows: Sequence[Row],
    columns: Sequence[Labels],
    choices: Sequence[Choice],
) -> list[Row]:
    wanted = [choice.labels for choice in choices]
    return [
        replace(
            row,
            cells=tuple(
                replace(cell, is_chosen=shown.setting({**place, **column}) in wanted)
                for column, cell in zip(columns, row.cells, strict=True)
            ),
        )
        for place, row in zip(shown.places(table.rows), rows, strict=True)
    ]


def _with_means(
    shown: Shown, table: Table, rows: Sequence[Row], columns: Sequence[Labels]
) -> list[Row]:
    """Add below each group of rows the mean, or median, over what its last axis varies."""
    if not table.mean_rows:
        return list(rows)
    added: list[Row] = []
    for labels, group in itertools.groupby(rows, key=lambda row: row.labels[:-1]):
        added += group
        place = dict(zip(table.rows[:-1], labels, strict=True))
        cells = tuple(shown.cell({**place, **column}) for column in columns)
        added.append(Row((*labels, table.statistic), cells, is_mean=True))
    return added


def _what(table: Table, place: Labels) -> str:
    """What a cell shows, trials aside: the metric's title, and the subgroup."""
    title = place.get(METRIC) or next(iter(table.metrics))
    group = place.get(SUBGROUP, table.subgroup)
    return f"{title} ({group})" if group else title
