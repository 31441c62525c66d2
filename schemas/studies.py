"""From a study to its trials, and from a trial to the jobs that make it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from schemas.grids import Point, label_of, merge, trial_name
from schemas.specs.base import JobSpec
from schemas.specs.embed import EmbedSpec
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.study import SVM, StudySpec
from schemas.specs.study_table import HEAD
from schemas.specs.train import TrainSpec

_Spec = TypeVar("_Spec", bound=JobSpec)

_DEFAULTS: Mapping[str, Any] = {"world_size": 1, "backends": "eager"}
"""Of the trainings: trials run side by side, and their bundles are rarely scored a second time."""

_DATA_FIELDS = (
    "dataset", "split", "fold", "inner_fold", "sites", "classes", "positive", "preprocess",
    "threshold_rule", "balance", "use_prepared", "allow_leaks", "backends",
)  # fmt: skip
"""Fields of a training that count for a support vector machine on its network's features, too."""


@dataclass(frozen=True)
class Outcome:
    """What is evaluated of a trial: its network, or the machine on its features."""

    labels: Mapping[str, str]
    """Label by axis, `head` included."""
    text: str
    """`metrics.trial` of its figures."""
    model: str
    """Its bundle."""


@dataclass(frozen=True)
class Trial:
    """One combination of a study's grid."""

    name: str
    """The name of its jobs, and of its network's bundle."""
    labels: Mapping[str, str]
    """Label by axis."""
    text: str
    """The labels as people read them."""
    jobs: tuple[JobSpec, ...]
    """What makes it, in order."""
    outcomes: tuple[Outcome, ...]

    @property
    def evaluations(self) -> list[EvaluateSpec]:
        """Its looks at the data."""
        return [job for job in self.jobs if isinstance(job, EvaluateSpec)]

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        sizes = [job.world_size for job in self.jobs if isinstance(job, TrainSpec)]
        return max(sizes, default=1)


def trials_of(study: StudySpec) -> list[Trial]:
    """The trials of a study, in the order of its grid."""
    return [_trial(study, point) for point in study.points]


def evaluation_of(trial: Trial, outcome: Outcome) -> EvaluateSpec:
    """The job that evaluates an outcome of a trial."""
    (job,) = (one for one in trial.evaluations if one.model == outcome.model)
    return job


def rival_labels(study: StudySpec, outcome: Outcome) -> dict[str, str]:
    """Labels of the outcome that another is compared with, where the study names some."""
    stated = study.against if isinstance(study.against, Mapping) else {}
    return {**outcome.labels, **{axis: label_of(label) for axis, label in stated.items()}}


def _trial(study: StudySpec, point: Point) -> Trial:
    train = _network(study, point)
    jobs: list[JobSpec] = [train]
    outcomes: list[Outcome] = []
    for head in study.heads:
        text, model = point.text or "only", train.model
        fitted = train
        if head == SVM:
            text, model = f"{text}, {HEAD}={SVM}", trial_name(study.name, point, SVM)
            fitted = _machine(study, train, model)
            jobs += [_features(study, train), fitted]
        outcomes.append(Outcome({**point.labels, HEAD: head}, text, model))
        jobs += [_score(study, fitted), _evaluate(study, fitted, text)]
    return Trial(train.model, point.labels, point.text or "only", tuple(jobs), tuple(outcomes))


def _network(study: StudySpec, point: Point) -> TrainSpec:
    fields = merge(_DEFAULTS, point.fields)
    return _spec(TrainSpec, study, trial_name(study.name, point), fields)


def _features(study: StudySpec, train: TrainSpec) -> EmbedSpec:
    fields: dict[str, Any] = {
        "dataset": train.dataset,
        "split": train.split,
        "parts": ["train", "val"],
        "use_prepared": train.use_prepared,
    }
    return _spec(EmbedSpec, study, train.model, fields)


def _machine(study: StudySpec, train: TrainSpec, model: str) -> TrainSpec:
    stated = train.model_dump(mode="json", include=set(_DATA_FIELDS))
    fields = {
        **stated,
        "head": SVM,
        "svm": study.svm.model_dump(mode="json"),
        "start": f"bundle:{train.model}",
        "architecture": train.architecture,
        "world_size": 1,
    }
    return _spec(TrainSpec, study, model, fields)


def _score(study: StudySpec, train: TrainSpec) -> ScoreSpec:
    """Score what is evaluated, and no more."""
    asked = _evaluate(study, train, "")
    scope: dict[str, Any] = {"parts": asked.parts} if asked.fold is None else {"fold": asked.fold}
    fields = {
        "use_prepared": train.use_prepared,
        "dataset": asked.dataset,
        "split": asked.split,
        **scope,
        **study.score,
    }
    return _spec(ScoreSpec, study, train.model, fields)


def _evaluate(study: StudySpec, train: TrainSpec, text: str) -> EvaluateSpec:
    fields: dict[str, Any] = {
        "dataset": train.dataset,
        "split": train.split,
        "pictures": False,
        **study.evaluate,
        "study": study.name,
        "trial": text,
    }
    same = (fields["dataset"], fields["split"]) == (train.dataset, train.split)
    if same and train.fold is not None:
        fields["fold"] = train.fold
        fields.pop("parts", None)  # the fold held out is what there is to report
    return _spec(EvaluateSpec, study, train.model, fields)


def _spec(kind: type[_Spec], study: StudySpec, name: str, fields: Mapping[str, Any]) -> _Spec:
    execution = study.execution.model_dump(mode="json")
    stated = {
        **fields,
        "name": name,
        "model": name,
        "max_reject_share": study.max_reject_share,
        "retry_rejects": study.retry_rejects,
        "execution": {**execution, "gpus_per_worker": study.gpus_per_trial},
    }
    return kind.model_validate_json(json.dumps(stated), strict=True)
