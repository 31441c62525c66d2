"""Tables over a study's trials: every cell a figure, or the mean of several with its interval."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtrit

from jobs.report.figures import Figure, Measured
from schemas.grids import label_of
from schemas.specs.study import METRIC, SUBGROUP, StudySpec, Table

LOWER_IS_BETTER = frozenset(
    {
        "under_triage", "custom_plus", "custom_multi", "expected_cost",
        "brier", "nll", "ece", "classwise_ece",
    }
)  # fmt: skip
"""Metrics of which less is better; of all others, more is."""
UNRANKED = frozenset({"delong_p", "mcnemar_p", "threshold", "confusion"})
"""Metrics that are neither good nor bad."""
MEAN = "mean"
_LEVEL = 0.95

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Cell:
    """A figure, or the mean of several trials' figures."""

    value: float | None
    """None where no trial has the figure."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval: of a single trial over patients, of several by Student's t over them."""
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
    """The setting that is best on the validation part."""

    labels: Labels
    metric: str
    value: float
    trials: int


@dataclass(frozen=True)
class StudyTable:
    """A table as it is shown."""

    name: str
    row_axes: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    """Labels of each column, one an axis."""
    rows: tuple[Row, ...]
    part: str
    choice: Choice | None
    chosen: tuple[tuple[str, Cell], ...]
    """The figures of the chosen setting, by what they are."""


def make_table(study: StudySpec, table: Table, found: Sequence[Measured]) -> StudyTable:
    """Fill a table of a study with the figures of its outcomes."""
    shown = _Shown(study, table, found)
    columns = shown.places(table.columns)
    rows = [
        Row(tuple(place.values()), tuple(shown.cell({**place, **column}) for column in columns))
        for place in shown.places(table.rows)
    ]
    choice = shown.choice()
    places = [(row, column) for row in shown.places(table.rows) for column in columns]
    marked = _mark_best(shown, table, rows, columns)
    if choice is not None:
        marked = _mark_chosen(shown, table, marked, columns, choice)
    chosen = [
        (_what(shown, table, {**row, **column}), shown.cell({**row, **column}))
        for row, column in places
        if choice is not None and shown.setting({**row, **column}) == choice.labels
    ]
    return StudyTable(
        name=table.name,
        row_axes=table.rows,
        columns=tuple(tuple(column.values()) for column in columns),
        rows=tuple(_with_means(shown, table, marked, columns)),
        part=table.part,
        choice=choice,
        chosen=tuple(chosen),
    )


class _Shown:
    """What a table shows of a study: its axes' values, and the outcomes behind each cell."""

    def __init__(self, study: StudySpec, table: Table, found: Sequence[Measured]) -> None:
        self._table, self._choose_by = table, study.choose_by
        where = {axis: label_of(label) for axis, label in table.where.items()}
        self._found = [one for one in found if _fits(one.outcome.labels, where)]
        self._values = {
            axis: [where[axis]] if axis in where else labels for axis, labels in study.axes.items()
        }
        self._values[METRIC] = list(table.metrics)
        self._values[SUBGROUP] = self._subgroups()

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
        """The figure of a place: of one outcome, or the mean over all that fit."""
        group = place.get(SUBGROUP, self._table.subgroup)
        return self._mean(self.setting(place), self._table.part, group, self.metric(place))

    def choice(self) -> Choice | None:
        """The setting with the best validation figure; none where there is but one, or no figure.

        A setting is a combination of the axes that the table shows; what it does not show is
        averaged over.
        """
        axes = [axis for axis in self._table.axes if axis not in (METRIC, SUBGROUP)]
        settings = self.places(axes)
        cells = [self._mean(one, "val", "", self._choose_by) for one in settings]
        scored = [
            Choice(setting, self._choose_by, cell.value, cell.trials)
            for setting, cell in zip(settings, cells, strict=True)
            if cell.value is not None
        ]
        if len(scored) < 2:
            return None
        return max(scored, key=lambda one: _rank(self._choose_by, one.value))

    def _mean(self, setting: Labels, part: str, group: str, metric: str) -> Cell:
        fitting = [one for one in self._found if _fits(one.outcome.labels, setting)]
        figures = [one.figure(part, group, metric) for one in fitting]
        there = [figure for figure in figures if figure is not None]
        return mean_cell(there, expected=len(fitting))


def mean_cell(figures: Sequence[Figure], expected: int) -> Cell:
    """The figure of one trial with its own interval, or the mean of several.

    The interval of a mean is Student's t over the trials: mean ± t(0.975, n - 1) s / √n.
    """
    if not figures:
        return Cell(None, expected=expected)
    if len(figures) == 1:
        (one,) = figures
        return Cell(one.value, one.low, one.high, 1, expected)
    values = [one.value for one in figures]
    count = len(values)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    reach = float(stdtrit(count - 1, (1 + _LEVEL) / 2)) * math.sqrt(variance / count)
    return Cell(mean, mean - reach, mean + reach, count, expected)


def _mark_best(
    shown: _Shown, table: Table, rows: Sequence[Row], columns: Sequence[Labels]
) -> list[Row]:
    """Mark the best cell of each column; of each row, where metrics are rows."""
    places = shown.places(table.rows)
    best: dict[tuple[int, str], float] = {}
    counts: dict[tuple[int, str], int] = {}

    def group(row: int, column: int) -> tuple[tuple[int, str], str]:
        metric = shown.metric({**places[row], **columns[column]})
        return (row if METRIC in table.rows else column, metric), metric

    for row, column in itertools.product(range(len(rows)), range(len(columns))):
        value = rows[row].cells[column].value
        if value is not None:
            key, metric = group(row, column)
            counts[key] = counts.get(key, 0) + 1
            best[key] = max(best.get(key, -math.inf), _rank(metric, value))

    def is_best(row: int, column: int, cell: Cell) -> bool:
        key, metric = group(row, column)
        ranked = cell.value is not None and metric.partition("/")[0] not in UNRANKED
        return ranked and counts[key] > 1 and _rank(metric, cell.value or 0.0) == best[key]

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
    shown: _Shown, table: Table, rows: Sequence[Row], columns: Sequence[Labels], choice: Choice
) -> list[Row]:
    return [
        replace(
            row,
            cells=tuple(
                replace(cell, is_chosen=shown.setting({**place, **column}) == choice.labels)
                for column, cell in zip(columns, row.cells, strict=True)
            ),
        )
        for place, row in zip(shown.places(table.rows), rows, strict=True)
    ]


def _with_means(
    shown: _Shown, table: Table, rows: Sequence[Row], columns: Sequence[Labels]
) -> list[Row]:
    """Add below each group of rows the mean over the group: over what its last axis varies."""
    if not table.mean_rows:
        return list(rows)
    added: list[Row] = []
    for labels, group in itertools.groupby(rows, key=lambda row: row.labels[:-1]):
        added += group
        place = dict(zip(table.rows[:-1], labels, strict=True))
        cells = tuple(shown.cell({**place, **column}) for column in columns)
        added.append(Row((*labels, MEAN), cells, is_mean=True))
    return added


def _what(shown: _Shown, table: Table, place: Labels) -> str:
    """What a cell shows, trials aside: the metric's title, and the subgroup."""
    title = place.get(METRIC) or next(iter(table.metrics))
    group = place.get(SUBGROUP, table.subgroup)
    return f"{title} ({group})" if group else title


def _rank(metric: str, value: float) -> float:
    """A figure as a number of which more is better."""
    return -value if metric.partition("/")[0] in LOWER_IS_BETTER else value


def _fits(labels: Labels, wanted: Labels) -> bool:
    return all(labels.get(axis) == label for axis, label in wanted.items())
