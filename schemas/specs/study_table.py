"""A table of a study: what it shows, and whether the study has it to show."""

from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol

from pydantic import Field

from schemas.grids import Loc, label_of, labels_of
from schemas.metricnames import METRICS, OF_CLASSES, P_VALUES
from schemas.specs.base import Spec
from schemas.specs.nested import Findings

METRIC, HEAD, SUBGROUP = "metric", "head", "subgroup"
"""Axes that every study has beside those of its grid."""

Statistic = Literal["mean", "median"]


class Table(Spec):
    """A table over a study's trials; what is neither row nor column is averaged over."""

    name: str
    """Its title."""
    rows: tuple[str, ...] = Field(min_length=1)
    """Axes whose values are the rows; the first groups those of the second."""
    columns: tuple[str, ...] = (METRIC,)
    """Axes whose values are the columns: those of the grid, `head`, `metric` for what `metrics`
    names, and `subgroup` for all of the kind that the field names."""
    metrics: dict[str, str] = Field(
        default_factory=lambda: {"Accuracy": "accuracy", "AUC": "auc"}, min_length=1
    )
    """Column titles and the metrics they show: `auc`, or `recall/PNEUMONIA` for one class."""
    where: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Axes of which only one value is shown."""
    part: Literal["train", "val", "test"] = "test"
    """Part the figures are of."""
    subgroup: str = ""
    """Subgroup the figures are of, as `site=A`; all images when empty. For the axis `subgroup`,
    what the groups are by: `site`."""
    mean_rows: bool = False
    """Add the mean, or median, of each group of rows."""
    statistic: Statistic = "mean"
    """What stands for several trials: their mean, with the 95 % interval of Student's t, or their
    median, with the smallest and the largest of them."""
    difference: str | None = None
    """An axis of two values among the columns: adds the second minus the first, of trials that are
    alike in all else."""

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes it shows."""
        return (*self.rows, *self.columns)


class Study(Protocol):
    """What checks of a table need to know of its study."""

    @property
    def train(self) -> Mapping[str, Any]:
        """Fields that all trainings share."""

    @property
    def grid(self) -> Mapping[str, Mapping[str, Any] | list[Any]]:
        """Values by axis."""

    @property
    def heads(self) -> Collection[str]:
        """What is evaluated of each trial."""

    @property
    def evaluate(self) -> Mapping[str, Any]:
        """Fields of the evaluations."""

    @property
    def axes(self) -> Mapping[str, list[str]]:
        """The labels that are run, by axis."""

    def axes_setting(self, fields: Collection[str]) -> list[str]:
        """The axes of which some value sets one of these fields of a training."""


def all_labels(study: Study) -> dict[str, list[str]]:
    """The labels of every axis, those that are left out included; `head` is the last axis."""
    axes = {name: labels_of(axis) for name, axis in study.grid.items()}
    return axes | {HEAD: list(study.heads)}


def check_table(study: Study, table: Table, here: Loc, findings: Findings) -> None:
    """Note what a study does not have to show, and what must not be averaged."""
    axes = all_labels(study)
    shown = [*((("rows", n), one) for n, one in enumerate(table.rows))]
    shown += [*((("columns", n), one) for n, one in enumerate(table.columns))]
    for place, axis in shown:
        if axis not in (*axes, METRIC, SUBGROUP):
            findings.note((*here, *place), "is no axis", [*axes, METRIC, SUBGROUP])
        if table.axes.count(axis) > 1:
            findings.note((*here, *place), "is shown twice")
    for axis, label in table.where.items():
        if axis not in axes:
            findings.note((*here, "where", axis), "is no axis", axes)
        elif label_of(label) not in axes[axis]:
            findings.note((*here, "where", axis), f"is no value of {axis}", axes[axis])
    _check_averages(study, table, axes, here, findings)
    _check_figures(study, table, here, findings)
    _check_p_values(study, table, here, findings)


def _check_averages(
    study: Study, table: Table, axes: Mapping[str, list[str]], here: Loc, findings: Findings
) -> None:
    """Refuse to average what answers different questions, and to subtract what are not two."""
    if len(study.heads) > 1 and HEAD not in (*table.axes, *table.where):
        what = "would average over heads: let `head` be among rows, columns or where"
        findings.note((*here, "rows"), what)
    for axis in study.axes_setting(("dataset", "split", "classes")):
        if len(axes[axis]) > 1 and axis not in (*table.axes, *table.where):
            what = f"would average over {axis}, whose figures are of other images: let it be among "
            findings.note((*here, "rows"), f"{what}rows, columns or where")
    if table.difference is not None:
        pairs = [name for name, labels in axes.items() if len(labels) == 2]
        if table.difference not in pairs:
            findings.note((*here, "difference"), "is no axis of two values", pairs)
        elif table.difference not in table.columns:
            findings.note((*here, "difference"), "needs the axis among columns")


def _check_figures(study: Study, table: Table, here: Loc, findings: Findings) -> None:
    """Check which figures a table shows, and of which groups."""
    if table.mean_rows and table.rows[-1:] in ((METRIC,), (SUBGROUP,)):
        what = f"takes means over the last axis of rows, and {table.rows[-1]} has none"
        findings.note((*here, "mean_rows"), what)
    if METRIC not in table.axes and len(table.metrics) > 1:
        findings.note((*here, "metrics"), "are several: let `metric` be among rows or columns")
    for title, metric in table.metrics.items():
        check_metric(study, metric, (*here, "metrics", title), findings)
    attribute = table.subgroup.partition("=")[0]
    if attribute and attribute not in study.evaluate.get("subgroups", ()):
        what = f"is none that `evaluate` computes: add {attribute} to evaluate.subgroups"
        findings.note((*here, "subgroup"), what)
    if (SUBGROUP in table.axes) != bool(attribute and "=" not in table.subgroup):
        what = "names one group (`site=A`), or what groups are by (`site`) if `subgroup` is an axis"
        findings.note((*here, "subgroup"), what)


def _check_p_values(study: Study, table: Table, here: Loc, findings: Findings) -> None:
    """Refuse to average what is no measure of anything once it is averaged."""
    if not {one.partition("/")[0] for one in table.metrics.values()} & P_VALUES:
        return
    averaged = [
        axis
        for axis, labels in study.axes.items()
        if len(labels) > 1 and axis not in (*table.axes, *table.where)
    ]
    if averaged:
        what = f"would average p-values over {', '.join(averaged)}: let it be among rows, columns"
        findings.note((*here, "metrics"), f"{what} or where")


def check_metric(study: Study, metric: str, here: Loc, findings: Findings) -> None:
    """Check a metric's name, and its class where the study says which there are."""
    name, slash, category = metric.partition("/")
    if name not in METRICS:
        findings.note(here, "is no metric", METRICS)
        return
    classes = study.train.get("classes") or ()
    if study.axes_setting(("classes",)) or not isinstance(classes, list | tuple):
        classes = ()
    if slash and classes and name in OF_CLASSES and category not in classes:
        findings.note(here, "is of no class of the study", [f"{name}/{one}" for one in classes])
