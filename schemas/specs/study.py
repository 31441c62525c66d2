"""The spec of `study`: one training repeated over a grid of settings, and the tables it makes."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.grids import Loc, Point, label_of, labels_of, points, trial_name
from schemas.metricnames import METRICS, OF_CLASSES
from schemas.specs.base import JobSpec, Spec
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.nested import FieldsOf, Findings, check_fields, check_point
from schemas.specs.score import ScoreSpec
from schemas.specs.train import Svm, TrainSpec

_OF_EVERY_JOB = frozenset({"kind", "name", "max_reject_share", "retry_rejects", "execution"})
NOT_TRAIN = _OF_EVERY_JOB | {"model"}
NOT_SCORE = _OF_EVERY_JOB | {"model", "dataset", "split", "parts", "fold", "gate", "budget"}
NOT_EVALUATE = _OF_EVERY_JOB | {"model", "fold", "study", "trial"}
"""What the study itself says to its trials' jobs."""
_OURS = "is what the study itself says to its trials: leave it out here"

TrainFields = Annotated[dict[str, Any], FieldsOf(TrainSpec, NOT_TRAIN)]
ScoreFields = Annotated[dict[str, Any], FieldsOf(ScoreSpec, NOT_SCORE)]
EvaluateFields = Annotated[dict[str, Any], FieldsOf(EvaluateSpec, NOT_EVALUATE)]

METRIC, HEAD, SUBGROUP = "metric", "head", "subgroup"
P_VALUES = frozenset({"delong_p", "mcnemar_p"})
"""Metrics of a comparison with another bundle."""
SVM = "svm"
"""The head that is a support vector machine; ends its bundle's name."""
_RESERVED = (METRIC, HEAD, SUBGROUP, "part", "trial", "study")
"""Words of tables that no axis may be called."""


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


class StudySpec(JobSpec):
    """Train, score and evaluate over a grid of settings; finished trials are not repeated."""

    kind: Literal["study"] = "study"
    train: TrainFields
    """Fields of a `train` job that all trials share; without model, which the study names. World
    size is 1 and backends are eager unless it says otherwise."""
    grid: dict[str, dict[str, TrainFields] | list[Any]] = Field(default_factory=dict)
    """Axes: a mapping of labels to fields of `train`, or a list of values of the field that the
    axis is named after. Every combination is a trial."""
    only: dict[str, list[str | int | float | bool]] = Field(default_factory=dict)
    """Labels that are run, by axis; all when not given. For profiles."""
    heads: tuple[Literal["network", "svm"], ...] = Field(default=("network",), min_length=1)
    """What is evaluated of each trial: its network, and a support vector machine on its features;
    the axis `head` of tables."""
    svm: Svm = Svm()
    """The field `svm` of the `train` jobs of the head svm."""
    score: ScoreFields = Field(default_factory=dict)
    """Fields of the trials' `score` jobs, such as backend."""
    evaluate: EvaluateFields = Field(default_factory=dict)
    """Fields of the trials' `evaluate` jobs, such as parts, severity, subgroups or bootstrap; the
    data set and split of the training unless it names others. No pictures unless it says so."""
    against: Literal["best"] | dict[str, str | int | float | bool] | None = None
    """What trials are compared with, on the images both have scored: `best` for the one that is
    best on the validation part of all that are evaluated on the same images; or labels, as
    `{backbone: ResNet-18}`, for the one that differs in these axes alone. Adds the metrics
    `delong_p` and `mcnemar_p`, for one more evaluation of each trial."""
    choose_by: str = "auc"
    """The metric of the validation part by which a trial is named best."""
    tables: tuple[Table, ...] = ()
    """Tables printed at the end, and by `rayward report`."""
    trials_at_once: int | None = Field(default=None, ge=1)
    """Trials that run side by side; as many as CPUs (or GPUs) allow when not given."""
    gpus_per_trial: float = Field(default=0, ge=0)
    """GPUs of a trial, or of each process of one that trains in several; may be a fraction. With 0
    trials train and score on CPUs, whatever GPUs their machine has."""

    @property
    def all_points(self) -> list[Point]:
        """The combinations of the grid, those that `only` leaves out included."""
        return points(self.train, self.grid, base_loc=("train",), grid_loc=("grid",))

    @property
    def points(self) -> list[Point]:
        """The combinations of the grid that are run."""
        axes = self.axes
        return [
            point
            for point in self.all_points
            if all(label in axes[name] for name, label in point.labels.items())
        ]

    @property
    def bundles(self) -> list[tuple[str, str]]:
        """Names of all bundles, each with the text of its trial; those of trials left out, too."""
        found = []
        for point in self.all_points:
            text = point.text or "only"
            found.append((trial_name(self.name, point), text))
            if "svm" in self.heads:
                found.append((trial_name(self.name, point, SVM), f"{text}, {HEAD}={SVM}"))
        return found

    def axes_setting(self, fields: Collection[str]) -> list[str]:
        """The axes of which some value sets one of these fields of `train`."""
        return [
            name
            for name, axis in self.grid.items()
            if (isinstance(axis, list) and name.partition(".")[0] in fields)
            or (isinstance(axis, dict) and any(set(fields) & set(one) for one in axis.values()))
        ]

    @property
    def axes(self) -> dict[str, list[str]]:
        """The labels that are run, by axis; `head` is the last axis."""
        found: dict[str, list[str]] = {}
        for name, axis in self.grid.items():
            wanted = {label_of(one) for one in self.only.get(name, labels_of(axis))}
            found[name] = [label for label in labels_of(axis) if label in wanted]
        return found | {HEAD: list(self.heads)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        findings = Findings()
        _check_grid(self, findings)
        findings.raise_any(self.kind)
        _check_jobs(self, findings)
        _check_metric(self, self.choose_by, ("choose_by",), findings)
        _check_against(self, findings)
        for place, table in enumerate(self.tables):
            _check_table(self, table, ("tables", place), findings)
            _check_p_values(self, table, ("tables", place), findings)
        findings.raise_any(self.kind)
        return self


def _check_grid(study: StudySpec, findings: Findings) -> None:
    for name, axis in study.grid.items():
        labels = labels_of(axis)
        if name in _RESERVED or not name:
            findings.note(("grid", name), "is a word of tables, no name for an axis")
        if not labels:
            findings.note(("grid", name), "has no values")
        for twice in sorted({one for one in labels if labels.count(one) > 1}):
            findings.note(("grid", name), f"has the value {twice} twice")
    for name, wanted in study.only.items():
        if name not in study.grid:
            findings.note(("only", name), "is no axis of the grid", study.grid)
            continue
        known = labels_of(study.grid[name])
        if not wanted:
            findings.note(("only", name), "leaves no trial")
        for place, label in enumerate(wanted):
            if label_of(label) not in known:
                findings.note(("only", name, place), f"is no value of {name}", known)


def _check_jobs(study: StudySpec, findings: Findings) -> None:
    """Construct the jobs of every trial, so that mistakes are told before anything runs."""
    _refuse(study.train, NOT_TRAIN, ("train",), findings)
    for axis, values in study.grid.items():
        for label, fields in values.items() if isinstance(values, dict) else ():
            _refuse(fields, NOT_TRAIN, ("grid", axis, label), findings)
        if isinstance(values, list) and axis.partition(".")[0] in NOT_TRAIN:
            findings.note(("grid", axis), _OURS)
    _refuse(study.score, NOT_SCORE, ("score",), findings)
    _refuse(study.evaluate, NOT_EVALUATE, ("evaluate",), findings)
    # Trials that are left out are checked too: another profile may run them.
    for point in study.all_points:
        check_point(TrainSpec, {"model": "m"}, point, ("train",), findings)
    names: dict[str, str] = {}
    for name, text in study.bundles:
        if name in names:
            what = f"gives two bundles the name {name}: {names[name]}; {text}"
            findings.note(("grid",), what)
        names[name] = text
    own = {"model": "m", "dataset": "d"}
    check_fields(ScoreSpec, own, study.score, ("score",), findings)
    check_fields(EvaluateSpec, {**own, "split": "s"}, study.evaluate, ("evaluate",), findings)


def _refuse(fields: Mapping[str, Any], names: frozenset[str], here: Loc, found: Findings) -> None:
    for name in sorted(names & set(fields)):
        found.note((*here, name), _OURS)


def _check_against(study: StudySpec, findings: Findings) -> None:
    if study.against is None:
        return
    if "against" in study.evaluate:
        what = "names what every trial is compared with: leave out `against` of the study, or this"
        findings.note(("evaluate", "against"), what)
    if study.against == "best":
        return
    axes = {name: labels_of(axis) for name, axis in study.grid.items()}
    axes[HEAD] = list(study.heads)
    if not study.against:
        findings.note(("against",), "names no label", axes)
    for axis, label in study.against.items():
        if axis not in axes:
            findings.note(("against", axis), "is no axis", axes)
        elif label_of(label) not in axes[axis]:
            findings.note(("against", axis), f"is no value of {axis}", axes[axis])


def _check_p_values(study: StudySpec, table: Table, here: Loc, findings: Findings) -> None:
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


def _check_metric(study: StudySpec, metric: str, here: Loc, findings: Findings) -> None:
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


def _check_table(study: StudySpec, table: Table, here: Loc, findings: Findings) -> None:
    axes = {name: labels_of(axis) for name, axis in study.grid.items()}
    axes[HEAD] = list(study.heads)
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


def _check_averages(
    study: StudySpec, table: Table, axes: Mapping[str, list[str]], here: Loc, findings: Findings
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


def _check_figures(study: StudySpec, table: Table, here: Loc, findings: Findings) -> None:
    """Check which figures a table shows, and of which groups."""
    if table.mean_rows and table.rows[-1:] in ((METRIC,), (SUBGROUP,)):
        what = f"takes means over the last axis of rows, and {table.rows[-1]} has none"
        findings.note((*here, "mean_rows"), what)
    if METRIC not in table.axes and len(table.metrics) > 1:
        findings.note((*here, "metrics"), "are several: let `metric` be among rows or columns")
    for title, metric in table.metrics.items():
        _check_metric(study, metric, (*here, "metrics", title), findings)
    attribute = table.subgroup.partition("=")[0]
    if attribute and attribute not in study.evaluate.get("subgroups", ()):
        what = f"is none that `evaluate` computes: add {attribute} to evaluate.subgroups"
        findings.note((*here, "subgroup"), what)
    if (SUBGROUP in table.axes) != bool(attribute and "=" not in table.subgroup):
        what = "names one group (`site=A`), or what groups are by (`site`) if `subgroup` is an axis"
        findings.note((*here, "subgroup"), what)
