"""Comparing the trials of a study with one another, once they are evaluated.

A comparison is one more evaluation of a trial, with the field `against`: the tests are paired, on
the images both have scored.
"""

from collections.abc import Sequence

from cluster.kinds import KINDS
from jobs.report.figures import measured
from jobs.report.outcomes import Measured
from jobs.report.rivals import rivals_of
from schemas.errors import RaywardError
from schemas.protocols import Store
from schemas.specs.study import StudySpec
from schemas.studies import Trial, evaluation_of, trials_of


def open_comparisons(study: StudySpec, store: Store) -> list[Trial]:
    """The comparisons that are not up to date, each named as the trial that is compared.

    A trial without figures, or whose rival has none, is left out: it is missed already.
    """
    if study.against is None:
        return []
    return [one for one in _comparisons(study, measured(study, store)) if _is_open(one, store)]


def _is_open(comparison: Trial, store: Store) -> bool:
    (job,) = comparison.jobs
    try:
        return bool(KINDS[job.kind].plan(job, store).inputs.num_rows)
    except RaywardError:  # told when it is tried
        return True


def _comparisons(study: StudySpec, found: Sequence[Measured]) -> list[Trial]:
    rivals = rivals_of(study, found)
    texts = {one.outcome.model: one.outcome.text for one in found}
    made = []
    for trial in trials_of(study):
        for outcome in trial.outcomes:
            rival = rivals.get(outcome.model)
            if rival is not None:
                job = evaluation_of(trial, outcome).model_copy(update={"against": rival})
                text = f"{outcome.text} against {texts[rival]}"
                made.append(Trial(trial.name, trial.labels, text, (job,), ()))
    return made
