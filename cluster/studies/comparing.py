"""Comparing the trials of a study with one another, once they are evaluated.

A comparison is one more evaluation of a trial, with the field `against`: the tests are paired, on
the images both have scored.
"""

from collections.abc import Sequence

from cluster.kinds import KINDS
from jobs.report.figures import Measured, measured
from jobs.report.tables import LOWER_IS_BETTER
from schemas.errors import RaywardError
from schemas.protocols import Store
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.study import StudySpec
from schemas.studies import Trial, evaluation_of, rival_labels, trials_of


def open_comparisons(study: StudySpec, store: Store) -> list[Trial]:
    """The comparisons that are not up to date, each named as the trial that is compared.

    A trial without figures, or whose rival has none, is left out: it is missed already.
    """
    if study.against is None:
        return []
    found = {one.outcome.model: one for one in measured(study, store) if one.figures}
    return [one for one in _comparisons(study, found) if _is_open(one, store)]


def _is_open(comparison: Trial, store: Store) -> bool:
    (job,) = comparison.jobs
    try:
        return bool(KINDS[job.kind].plan(job, store).inputs.num_rows)
    except RaywardError:  # told when it is tried
        return True


def _comparisons(study: StudySpec, found: dict[str, Measured]) -> list[Trial]:
    made = []
    for trial in trials_of(study):
        for outcome in trial.outcomes:
            job = evaluation_of(trial, outcome)
            if outcome.model not in found:
                continue
            rival = _rival(study, found[outcome.model], job, found)
            if rival is None or rival is found[outcome.model]:
                continue
            against = job.model_copy(update={"against": rival.outcome.model})
            text = f"{outcome.text} against {rival.outcome.text}"
            made.append(Trial(trial.name, trial.labels, text, (against,), ()))
    return made


def _rival(
    study: StudySpec, one: Measured, job: EvaluateSpec, found: dict[str, Measured]
) -> Measured | None:
    """What an outcome is compared with; itself where it is its own rival."""
    if study.against == "best":
        return _best(study, _on_same_images(study, job, found))
    wanted = rival_labels(study, one.outcome)
    return next((other for other in found.values() if other.outcome.labels == wanted), None)


def _on_same_images(
    study: StudySpec, job: EvaluateSpec, found: dict[str, Measured]
) -> list[Measured]:
    """Outcomes whose evaluation is of the images that ``job`` evaluates on."""
    place = (job.dataset, job.split, job.fold)
    same = []
    for trial in trials_of(study):
        for outcome in trial.outcomes:
            other = evaluation_of(trial, outcome)
            if outcome.model in found and (other.dataset, other.split, other.fold) == place:
                same.append(found[outcome.model])
    return same


def _best(study: StudySpec, outcomes: Sequence[Measured]) -> Measured | None:
    """The best on the validation part; the first of several."""
    sign = -1 if study.choose_by.partition("/")[0] in LOWER_IS_BETTER else 1
    scored = [
        (sign * figure.value, one)
        for one in outcomes
        if (figure := one.figure("val", "", study.choose_by)) is not None
    ]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None
