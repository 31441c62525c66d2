"""A study's figures as they stand in the lake."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.protocols import Store
from schemas.specs.base import identity_of
from schemas.specs.study import StudySpec
from schemas.specs.train import TrainSpec
from schemas.studies import Outcome, trials_of

_BUNDLES = """
SELECT name, model_id, metrics FROM models WHERE list_contains($models, name)
QUALIFY row_number() OVER (PARTITION BY name ORDER BY version DESC, created_at DESC) = 1
"""
"""The newest version of each bundle: what the trial comes down to now."""

_EVALUATIONS = """
SELECT run_id, spec, spec ->> 'trial' AS trial FROM runs
WHERE kind = 'evaluate' AND spec ->> 'study' = $study
QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY recorded_at DESC) = 1
    AND state = 'published'
"""

_FIGURES = """
SELECT trial, part, subgroup, model_id, metric, category, value, ci_low, ci_high FROM metrics
WHERE study = $study AND list_contains($model_ids, model_id) AND list_contains($run_ids, run_id)
QUALIFY rank() OVER (PARTITION BY trial, model_id, part ORDER BY run_id DESC) = 1
"""
"""Of each trial and part the newest evaluation, whole: an older one may have asked for more."""

_QUESTION = ("dataset", "split", "fold", "severity", "age_bands")
"""Fields of an evaluation that say what its figures are of. Others, such as parts and subgroups,
say which there are, or how wide their intervals are found."""

_TRAINED = """
SELECT spec ->> 'model' AS model, spec FROM runs
WHERE kind = 'train' AND state = 'published' AND list_contains($models, spec ->> 'model')
QUALIFY row_number() OVER (PARTITION BY model ORDER BY recorded_at DESC) = 1
"""

_LOOKS = """
WITH looks AS (
    SELECT spec ->> 'study' AS study, spec ->> 'fold' AS fold, spec -> 'parts' AS parts
    FROM runs
    WHERE kind = 'evaluate' AND spec ->> 'dataset' = $dataset AND spec ->> 'split' = $split
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY recorded_at DESC) = 1
        AND state = 'published'
)
SELECT count(*) AS looks, count(*) FILTER (WHERE study = $study) AS ours FROM looks
WHERE CASE WHEN $folds THEN fold IS NOT NULL
    ELSE fold IS NULL AND json_contains(parts, '"test"') END
"""


@dataclass(frozen=True)
class Figure:
    """One figure of one outcome."""

    value: float
    low: float | None
    """Lower end of the 95 % interval over patients."""
    high: float | None


Key = tuple[str, str, str]
"""Part, subgroup, and metric or metric/category."""


@dataclass(frozen=True)
class Measured:
    """An outcome of a trial, and its figures."""

    outcome: Outcome
    figures: Mapping[Key, Figure] = field(default_factory=dict)

    def figure(self, part: str, subgroup: str, metric: str) -> Figure | None:
        """A figure by its name: ``auc``, or ``recall/PNEUMONIA``.

        Of a metric that has figures of one class only (sensitivity) the metric's name is enough.
        """
        found = self.figures.get((part, subgroup, metric))
        if found is None and "/" not in metric:
            among = [
                one
                for (of_part, of_group, name), one in self.figures.items()
                if (of_part, of_group, name.partition("/")[0]) == (part, subgroup, metric)
                and "|" not in name
            ]
            found = among[0] if len(among) == 1 else None
        return found


@dataclass(frozen=True)
class Looks:
    """How often a split's test part, or its held-out folds, were evaluated."""

    split: str
    folds: bool
    every: int
    ours: int
    """By the study itself."""


def measured(study: StudySpec, store: Store) -> list[Measured]:
    """The outcomes of a study with the figures the lake has of them, in the study's order.

    Figures are of the newest version of a trial's bundle, by evaluations that asked what the trial
    asks: another study may have had this name before, on other data. Those of the validation part
    that no evaluation made, as where folds are held out, are what its training found.
    """
    outcomes = [outcome for trial in trials_of(study) for outcome in trial.outcomes]
    models = [one.model for one in outcomes]
    bundles = {row["name"]: row for row in store.query(_BUNDLES, {"models": models}).to_pylist()}
    asked = {
        "study": study.name,
        "model_ids": [row["model_id"] for row in bundles.values()],
        "run_ids": _own_evaluations(study, store),
    }
    figures: dict[tuple[str, str], dict[Key, Figure]] = defaultdict(dict)
    for row in store.query(_FIGURES, asked).to_pylist():
        name = f"{row['metric']}/{row['category']}" if row["category"] else row["metric"]
        figure = Figure(row["value"], row["ci_low"], row["ci_high"])
        figures[row["trial"], row["model_id"]][row["part"], row["subgroup"], name] = figure
    found = []
    for outcome in outcomes:
        bundle = bundles.get(outcome.model)
        key = (outcome.text, bundle["model_id"] if bundle else "")
        at_training = _at_training(bundle["metrics"]) if bundle and key in figures else {}
        found.append(Measured(outcome, {**at_training, **figures.get(key, {})}))
    return found


def _own_evaluations(study: StudySpec, store: Store) -> list[str]:
    """The runs that asked what a trial of the study asks."""
    asked = {
        job.trial: _question(job.model_dump(mode="json"))
        for trial in trials_of(study)
        for job in trial.evaluations
    }
    rows = store.query(_EVALUATIONS, {"study": study.name}).to_pylist()
    return [
        row["run_id"]
        for row in rows
        if row["trial"] in asked and _question(json.loads(row["spec"])) == asked[row["trial"]]
    ]


def _question(spec: Mapping[str, Any]) -> list[Any]:
    return [spec.get(name) for name in _QUESTION]


def _at_training(metrics: str | None) -> dict[Key, Figure]:
    return {
        ("val", "", name): Figure(float(value), None, None)
        for name, value in json.loads(metrics or "{}").items()
        if isinstance(value, int | float)
    }


def trained_otherwise(study: StudySpec, store: Store) -> list[str]:
    """Trials whose bundle came from other settings than the study has now."""
    trainings = {
        job.model: (trial.text, job)
        for trial in trials_of(study)
        for job in trial.jobs
        if isinstance(job, TrainSpec)
    }
    rows = store.query(_TRAINED, {"models": list(trainings)}).to_pylist()
    recorded = {row["model"]: identity_of(TrainSpec, json.loads(row["spec"])) for row in rows}
    others = [
        text
        for model, (text, job) in trainings.items()
        if model in recorded and recorded[model] != job.identity()
    ]
    return list(dict.fromkeys(others))


def looks(study: StudySpec, store: Store) -> list[Looks]:
    """How often each test part that the study reports was looked at."""
    evaluations = {
        (job.dataset, job.split, job.fold is not None)
        for trial in trials_of(study)
        for job in trial.evaluations
        if job.fold is not None or "test" in job.parts
    }
    found = []
    for dataset, split, folds in sorted(evaluations):
        asked = {"dataset": dataset, "split": split, "study": study.name, "folds": folds}
        (row,) = store.query(_LOOKS, asked).to_pylist()
        found.append(Looks(split, folds, row["looks"], row["ours"]))
    return found
