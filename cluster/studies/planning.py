"""What is left of a study, as things stand in the lake; starts nothing."""

import pyarrow as pa

from cluster.kinds import KINDS
from cluster.studies.comparing import open_comparisons
from schemas.errors import RaywardError
from schemas.plan import Counts, Plan
from schemas.protocols import Store
from schemas.specs.study import StudySpec
from schemas.studies import Trial, trials_of


def plan_study(study: StudySpec, store: Store) -> Plan:
    """Plan the trials that are not up to date, as rows with a column ``trial``.

    Raises:
        RaywardError: if not a single trial can be planned, as where there is no such split; the
            error of the first.
    """
    trials = trials_of(study)
    pending: list[Trial] = []
    wrong: dict[str, RaywardError] = {}
    for trial in trials:
        try:
            if not is_up_to_date(trial, store):
                pending.append(trial)
        except RaywardError as error:
            wrong[trial.text] = error
            pending.append(trial)
    # A trial whose comparison is left is looked at again.
    compared = {one.name for one in open_comparisons(study, store)}
    pending = [one for one in trials if one in pending or one.name in compared]
    if len(wrong) == len(trials):
        raise next(iter(wrong.values()))
    return Plan(
        kind=study.kind,
        name=study.name,
        key=key(study),
        identity={},
        params={},
        inputs=pa.table({"trial": pa.array([one.name for one in pending], pa.string())}),
        bounds=(),
        counts=Counts(up_to_date=len(trials) - len(pending)),
        facts={f"can't be planned yet: {text}": str(error) for text, error in wrong.items()},
        unit="trials",
    )


def key(study: StudySpec) -> tuple[str, ...]:
    """One driver alone runs a study."""
    return (study.kind, study.name)


def is_up_to_date(trial: Trial, store: Store) -> bool:
    """Whether every job of a trial has nothing to do.

    Raises:
        RaywardError: if its first job can't be planned as things stand. A later one that can't
            waits for an earlier one.
    """
    first, *others = trial.jobs
    if KINDS[first.kind].plan(first, store).inputs.num_rows:
        return False
    try:
        return not any(KINDS[job.kind].plan(job, store).inputs.num_rows for job in others)
    except RaywardError:
        return False
