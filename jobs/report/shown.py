"""What a table shows of a study: the values of its axes, and the outcomes behind each cell."""

import itertools
from collections.abc import Sequence

from jobs.report.cells import Cell, Choice, Labels, summary_cell
from jobs.report.outcomes import Figure, Measured
from schemas.grids import label_of
from schemas.metricnames import LOWER_IS_BETTER
from schemas.specs.study import StudySpec
from schemas.specs.study_table import METRIC, SUBGROUP, Table

QUESTION = frozenset({"dataset", "split", "fold", "sites", "classes", "allow_leaks"})
"""Fields of a training that change what its validation figure is of."""
OF_OTHER_IMAGES = frozenset({"dataset", "split", "classes"})
"""Fields of a training that change what its figure on the test part is of."""


class Shown:
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
            max(settings, key=lambda one: rank(self._choose_by, one.value))
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


def rank(metric: str, value: float) -> float:
    """A figure as a number of which more is better."""
    return -value if metric.partition("/")[0] in LOWER_IS_BETTER else value


def _fits(labels: Labels, wanted: Labels) -> bool:
    return all(labels.get(axis) == label for axis, label in wanted.items())
