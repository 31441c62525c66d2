"""With which bundle each outcome of a study is compared."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from jobs.report.outcomes import Measured
from schemas.metricnames import LOWER_IS_BETTER
from schemas.specs.study import StudySpec
from schemas.studies import evaluation_of, rival_labels, trials_of

Place = tuple[str, str, int | None]
"""Data set, split and fold: whose images an evaluation is of."""


def rivals_of(study: StudySpec, found: Iterable[Measured]) -> dict[str, str]:
    """By bundle the one that it is compared with, as the study names it.

    Left out are outcomes without figures, those whose rival has none, and those that are their own.
    """
    known = {one.outcome.model: one for one in found if one.figures}
    if study.against is None:
        named = study.evaluate.get("against")
        rivals = {} if named is None else dict.fromkeys(known, str(named))
    elif study.against == "best":
        rivals = _best_of_all(study, known)
    else:
        by_labels = {_sorted(one.outcome.labels): model for model, one in known.items()}
        wanted = {model: _sorted(rival_labels(study, one.outcome)) for model, one in known.items()}
        rivals = {
            model: by_labels[labels] for model, labels in wanted.items() if labels in by_labels
        }
    return {model: rival for model, rival in rivals.items() if rival != model}


def _sorted(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _best_of_all(study: StudySpec, known: Mapping[str, Measured]) -> dict[str, str]:
    """For each bundle the best of those that are evaluated on the same images."""
    places: dict[str, Place] = {}
    same: dict[Place, list[Measured]] = defaultdict(list)
    for trial in trials_of(study):
        for outcome in trial.outcomes:
            if outcome.model in known:
                job = evaluation_of(trial, outcome)
                places[outcome.model] = (job.dataset, job.split, job.fold)
                same[places[outcome.model]].append(known[outcome.model])
    best = {place: _best(study, outcomes) for place, outcomes in same.items()}
    return {
        model: rival.outcome.model
        for model, place in places.items()
        if (rival := best[place]) is not None
    }


def _best(study: StudySpec, outcomes: Sequence[Measured]) -> Measured | None:
    """The best on the validation part; the first of several."""
    sign = -1 if study.choose_by.partition("/")[0] in LOWER_IS_BETTER else 1
    scored = [
        (sign * figure.value, one)
        for one in outcomes
        if (figure := one.figure("val", "", study.choose_by)) is not None
    ]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None
