"""The spec of `study`: one training repeated over a grid of settings, and the tables it makes."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.grids import Loc, Point, label_of, labels_of, points, trial_name
from schemas.specs.base import JobSpec
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.modelname import RESERVED
from schemas.specs.nested import FieldsOf, Findings, check_fields, check_point
from schemas.specs.score import NIGHTLY, ScoreSpec
from schemas.specs.study_table import (
    HEAD,
    METRIC,
    SUBGROUP,
    Table,
    all_labels,
    check_metric,
    check_table,
)
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

SVM = "svm"
"""The head that is a support vector machine; ends its bundle's name."""
_RESERVED = (METRIC, HEAD, SUBGROUP, "part", "trial", "study")
"""Words of tables that no axis may be called."""


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
        check_metric(self, self.choose_by, ("choose_by",), findings)
        _check_against(self, findings)
        for place, table in enumerate(self.tables):
            check_table(self, table, ("tables", place), findings)
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
        if name == NIGHTLY:
            findings.note(("name",), RESERVED)
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
    axes = all_labels(study)
    if not study.against:
        findings.note(("against",), "names no label", axes)
    for axis, label in study.against.items():
        if axis not in axes:
            findings.note(("against", axis), "is no axis", axes)
        elif label_of(label) not in axes[axis]:
            findings.note(("against", axis), f"is no value of {axis}", axes[axis])
