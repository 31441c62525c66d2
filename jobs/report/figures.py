"""A study's figures as they stand in the lake."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.report.outcomes import Figure, Key, Measured
from jobs.report.rivals import rivals_of
from schemas.metricnames import OF_BUNDLES
from schemas.naming import reference
from schemas.protocols import Store
from schemas.specs.base import identity_of
from schemas.specs.study import StudySpec
from schemas.specs.train import TrainSpec
from schemas.studies import trials_of

_BUNDLES = """
SELECT name, version, model_id, metrics FROM models WHERE list_contains($models, name)
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
WITH own AS (
    SELECT * EXCLUDE (category), coalesce(category, '') AS category,
        CASE WHEN list_contains($of_bundles, metric) THEN split_part(category, '|', 1) END AS rival
    FROM metrics WHERE study = $study
        AND list_contains($model_ids, model_id) AND list_contains($run_ids, run_id)
),
newest AS (
    SELECT * FROM own WHERE rival IS NULL
    QUALIFY rank() OVER (PARTITION BY trial, model_id, part ORDER BY run_id DESC) = 1
),
outdated AS (
    SELECT own.run_id, own.part FROM own
    JOIN newest USING (trial, model_id, part, subgroup, metric, category)
    WHERE own.rival IS NULL AND abs(own.value - newest.value) > 1e-9
        AND NOT isnan(own.value - newest.value)
),
compared AS (
    SELECT * FROM own WHERE rival IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM outdated
            WHERE outdated.run_id = own.run_id AND outdated.part = own.part)
    QUALIFY rank() OVER (PARTITION BY trial, model_id, part, rival ORDER BY run_id DESC) = 1
)
SELECT trial, part, subgroup, model_id, metric, category, value, ci_low, ci_high, rival
FROM (SELECT * FROM newest UNION ALL SELECT * FROM compared)
"""
"""Of each trial and part the newest evaluation, whole: an older one may have asked for more. Of
comparisons the newest with each rival, unless it found other figures than the newest evaluation:
then it is of other scores."""

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
    WHERE kind IN ('evaluate', 'evaluate_detector')
        AND spec ->> 'dataset' = $dataset AND spec ->> 'split' = $split
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY recorded_at DESC) = 1
        AND state = 'published'
)
SELECT count(*) AS looks, count(*) FILTER (WHERE study = $study) AS ours FROM looks
WHERE CASE WHEN $folds THEN fold IS NOT NULL
    ELSE fold IS NULL AND json_contains(parts, '"test"') END
"""


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
    that no evaluation made, as where folds are held out, are what its training found. Comparisons
    are those with the newest version of the bundle that the study names now.
    """
    trials = trials_of(study)
    outcomes = [outcome for trial in trials for outcome in trial.outcomes]
    others = [job.against for trial in trials for job in trial.evaluations if job.against]
    bundles = _newest_bundles([*(one.model for one in outcomes), *others], store)
    asked = {
        "study": study.name,
        "model_ids": [row["model_id"] for row in bundles.values()],
        "run_ids": _own_evaluations(study, store),
        "of_bundles": list(OF_BUNDLES),
    }
    figures: dict[tuple[str, str, str], dict[Key, Figure]] = defaultdict(dict)
    for row in store.query(_FIGURES, asked).to_pylist():
        name = f"{row['metric']}/{row['category']}" if row["category"] else row["metric"]
        figure = Figure(row["value"], row["ci_low"], row["ci_high"])
        whose = (row["trial"], row["model_id"], row["rival"] or "")
        figures[whose][row["part"], row["subgroup"], name] = figure
    found = []
    for outcome in outcomes:
        bundle = bundles.get(outcome.model, {})
        own = figures.get((outcome.text, bundle.get("model_id", ""), ""), {})
        at_training = _at_training(bundle["metrics"]) if own else {}
        found.append(Measured(outcome, {**at_training, **own}))
    rivals = rivals_of(study, found)
    for place, one in enumerate(found):
        rival = rivals.get(one.outcome.model)
        if rival is not None:
            named = reference(bundles[rival]) if rival in bundles else rival
            whose = (one.outcome.text, bundles[one.outcome.model]["model_id"], named)
            found[place] = replace(one, figures={**one.figures, **figures.get(whose, {})})
    return found


def _newest_bundles(names: Sequence[str], store: Store) -> dict[str, dict[str, Any]]:
    rows = store.query(_BUNDLES, {"models": list(names)}).to_pylist()
    return {row["name"]: row for row in rows}


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
