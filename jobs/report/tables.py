"""Tables over a study's trials: every cell a figure, or the mean or median of several."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.special import stdtrit

from jobs.report.figures import Figure, Measured
from schemas.grids import label_of
from schemas.specs.study import METRIC, SUBGROUP, Statistic, StudySpec, Table

LOWER_IS_BETTER = frozenset(
    {
        "under_triage", "custom_plus", "custom_multi", "expected_cost",
        "brier", "nll", "ece", "classwise_ece",
    }
)  # fmt: skip
"""Metrics of which less is better; of all others, more is."""
UNRANKED = frozenset({"delong_p", "mcnemar_p", "threshold", "confusion"})
"""Metrics that are neither good nor bad."""
QUESTION = frozenset({"dataset", "split", "fold", "sites", "classes", "allow_leaks"})
"""Fields of a training that change what its validation figure is of."""
OF_OTHER_IMAGES = frozenset({"dataset", "split", "classes"})
"""Fields of a training that change what its figure on the test part is of."""
_LEVEL = 0.95

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Cell:
    """A figure, or the mean of several trials' figures."""

    value: float | None
    """None where no trial has the figure."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval: of a single trial over patients, of a mean by Student's t over trials. Of
    a median the smallest and the largest figure."""
    trials: int = 0
    """Trials it rests on."""
    expected: int = 0
    """Trials it should rest on."""
    is_best: bool = False
    is_chosen: bool = False
    """Belongs to the setting that the validation part chose."""


@dataclass(frozen=True)
class Row:
    """A row: its labels, one an axis, and its cells."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    is_mean: bool = False


@dataclass(frozen=True)
class Choice:
    """The setting that is best on the validation part, among those that answer one question."""

    labels: Labels
    metric: str
    value: float
    trials: int
    figures: tuple[tuple[str, Cell], ...] = ()
    """The figures of the setting that the table shows, by what they are."""


@dataclass(frozen=True)
class StudyTable:
    """A table as it is shown."""

    name: str
    row_axes: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    """Labels of each column, one an axis."""
    rows: tuple[Row, ...]
    part: str
    statistic: Statistic
    choices: tuple[Choice, ...]
    """One for each question, as for each split; none where there is nothing to choose from."""


def make_table(study: StudySpec, table: Table, found: Sequence[Measured]) -> StudyTable:
    """Fill a table of a study with the figures of its outcomes."""
    shown = _Shown(study, table, found)
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


class _Shown:
    """What a table shows of a study: its axes' values, and the outcomes behind each cell."""

    def __init__(self, study: StudySpec, table: Table, found: Sequence[Measured]) -> None:
        self._table, self._choose_by = table, study.choose_by
        self._questions = study.axes_setting(QUESTION)
        self._images = study.axes_setting(OF_OTHER_IMAGES)
        self._difference = ""
        """The label of the difference between the two values of an axis, if it is shown."""
        where = {axis: label_of(label) for axis, label in table.where.items()}
        self._found = [one for one in found if _fits(one.outcome.labels, where)]
        self._values = {
            axis: [where[axis]] if axis in where else labels for axis, labels in study.axes.items()
        }
        self._values[METRIC] = list(table.metrics)
        self._values[SUBGROUP] = self._subgroups()
        if table.difference is not None and len(self._values[table.difference]) == 2:
            first, second = self._values[table.difference]
            self._difference = f"{second} minus {first}"
            self._values[table.difference].append(self._difference)

    def _subgroups(self) -> list[str]:
        by = f"{self._table.subgroup}="
        groups = {group for one in self._found for _, group, _ in one.figures}
        return sorted(group for group in groups if group.startswith(by))

    def places(self, axes: Sequence[str]) -> list[dict[str, str]]:
        """Every combination of the values of some axes, the last varying fastest."""
        values = itertools.product(*(self._values[axis] for axis in axes))
        return [dict(zip(axes, labels, strict=True)) for labels in values]

    def setting(self, place: Labels) -> dict[str, str]:
        """What a place says about trials, figures aside."""
        return {axis: label for axis, label in place.items() if axis not in (METRIC, SUBGROUP)}

    def metric(self, place: Labels) -> str:
        """The metric a place shows."""
        metrics = self._table.metrics
        return metrics[place[METRIC]] if METRIC in place else next(iter(metrics.values()))

    def cell(self, place: Labels) -> Cell:
        """The figure of a place: of one outcome, or the mean or median over all that fit."""
        group = place.get(SUBGROUP, self._table.subgroup)
        setting, metric = self.setting(place), self.metric(place)
        if self.is_difference(place):
            return self._paired(setting, group, metric)
        return self._over(setting, self._table.part, group, metric)

    def is_difference(self, place: Labels) -> bool:
        """Whether a place shows a difference between two settings."""
        return (
            bool(self._difference) and place.get(self._table.difference or "") == self._difference
        )

    def same_images(self, place: Labels) -> tuple[str, ...]:
        """What places must share for their figures to be of the same images."""
        return tuple(place[axis] for axis in self._images if axis in place)

    def choices(self) -> list[Choice]:
        """For each question the setting with the best validation figure.

        A setting is a combination of the axes that the table shows; what it does not show is
        averaged over. Axes that change what is asked, as the split does, part the settings: a
        figure on other images is no better or worse. A question of one setting, or without
        figures, has no choice.
        """
        axes = [axis for axis in self._table.axes if axis not in (METRIC, SUBGROUP)]
        group = "" if SUBGROUP in self._table.axes else self._table.subgroup
        by_question: dict[tuple[str, ...], list[Choice]] = {}
        for setting in self.places(axes):
            cell = self._over(setting, "val", group, self._choose_by)
            if cell.value is not None and not self.is_difference(setting):
                question = tuple(setting[axis] for axis in self._questions if axis in setting)
                one = Choice(setting, self._choose_by, cell.value, cell.trials)
                by_question.setdefault(question, []).append(one)
        return [
            max(settings, key=lambda one: _rank(self._choose_by, one.value))
            for settings in by_question.values()
            if len(settings) > 1
        ]

    def _over(self, setting: Labels, part: str, group: str, metric: str) -> Cell:
        fitting = [one for one in self._found if _fits(one.outcome.labels, setting)]
        figures = [one.figure(part, group, metric) for one in fitting]
        there = [figure for figure in figures if figure is not None]
        return summary_cell(there, len(fitting), self._table.statistic)

    def _paired(self, setting: Labels, group: str, metric: str) -> Cell:
        """The difference between two values of an axis, of trials that are alike in all else."""
        axis = str(self._table.difference)
        first, second, _ = self._values[axis]
        rest = {name: label for name, label in setting.items() if name != axis}
        pairs: dict[tuple[tuple[str, str], ...], dict[str, Figure | None]] = {}
        for one in self._found:
            if _fits(one.outcome.labels, rest):
                others = {**one.outcome.labels}
                side = others.pop(axis)
                figure = one.figure(self._table.part, group, metric)
                pairs.setdefault(tuple(others.items()), {})[side] = figure
        there = [
            Figure(above.value - below.value, None, None)
            for pair in pairs.values()
            if (above := pair.get(second)) is not None and (below := pair.get(first)) is not None
        ]
        return summary_cell(there, len(pairs), self._table.statistic)


def summary_cell(figures: Sequence[Figure], expected: int, statistic: Statistic = "mean") -> Cell:
    """The figure of one trial with its own interval, or the mean or median of several.

    The interval of a mean is Student's t over the trials: mean ± t(0.975, n - 1) s / √n. Beside a
    median stand the smallest and the largest figure.
    """
    if not figures:
        return Cell(None, expected=expected)
    if len(figures) == 1:
        (one,) = figures
        return Cell(one.value, one.low, one.high, 1, expected)
    values = [one.value for one in figures]
    count = len(values)
    if statistic == "median":
        return Cell(statistics.median(values), min(values), max(values), count, expected)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    reach = float(stdtrit(count - 1, (1 + _LEVEL) / 2)) * math.sqrt(variance / count)
    return Cell(mean, mean - reach, mean + reach, count, expected)


def _mark_best(
    shown: _Shown, table: Table, rows: Sequence[Row], columns: Sequence[Labels]
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
            best[key] = max(best.get(key, -math.inf), _rank(metric, value))

    def is_best(row: int, column: int, cell: Cell) -> bool:
        key, metric = group(row, column)
        place = {**places[row], **columns[column]}
        ranked = cell.value is not None and metric.partition("/")[0] not in UNRANKED
        return (
            ranked
            and not shown.is_difference(place)
            and counts[key] > 1
            and _rank(metric, cell.value or 0.0) == best[key]
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
    shown: _Shown,
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
    shown: _Shown, table: Table, rows: Sequence[Row], columns: Sequence[Labels]
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


def _rank(metric: str, value: float) -> float:
    """A figure as a number of which more is better."""
    return -value if metric.partition("/")[0] in LOWER_IS_BETTER else value


def _fits(labels: Labels, wanted: Labels) -> bool:
    return all(labels.get(axis) == label for axis, label in wanted.items())
