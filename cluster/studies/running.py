"""A study as a job: the trials that are not up to date are made, and what fails is named."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from cluster.lake.store import LakeStore
from cluster.progress import Progress, duration
from cluster.ray_session import RaySession
from cluster.studies.comparing import open_comparisons
from cluster.studies.crew import Crew, Ended
from cluster.studies.planning import key, plan_study
from cluster.studies.process import TrialEnd, Workplace
from cluster.studies.watching import Watch
from cluster.train_order import open_board
from cluster.watching.metrics import RunMetrics
from schemas.errors import RaywardError
from schemas.plan import Counts
from schemas.protocols import Report
from schemas.specs.study import StudySpec
from schemas.studies import Trial, trials_of

Note = Callable[[Trial, TrialEnd | RaywardError], str]
"""Counts a trial that ended; returns what to tell of it."""


@dataclass
class _Tally:
    """What became of the trials so far, and of their comparisons."""

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    not_compared: dict[str, str] = field(default_factory=dict)
    rejecting: list[str] = field(default_factory=list)

    def note(self, trial: Trial, end: TrialEnd | RaywardError) -> str:
        """Count a trial that ended; returns what to tell of it."""
        if isinstance(end, RaywardError):
            self.failed[trial.text] = str(end)
            return f"{trial.text}: failed: {end}"
        self.done += 1
        if end.rejecting:
            self.rejecting.append(f"{trial.text} ({', '.join(end.rejecting)})")
        told = [f"{name} {value:.4g}" for name, value in end.facts.items() if name in _TOLD]
        words = [f"{trial.text}: done in {duration(end.seconds)}", *told, *end.warnings]
        return ", ".join(words)

    def note_comparison(self, comparison: Trial, end: TrialEnd | RaywardError) -> str:
        """Count a comparison that ended; returns what to tell of it."""
        if isinstance(end, RaywardError):
            self.not_compared[comparison.text] = str(end)
            return f"{comparison.text}: failed: {end}"
        return f"{comparison.text}: done in {duration(end.seconds)}"

    @property
    def failures(self) -> dict[str, str]:
        """Everything that failed."""
        return {**self.failed, **self.not_compared}


REJECTING = "trials that rejected much"
"""The fact that names trials of which a job rejected more than it may."""
_TOLD = ("val auc", "val accuracy")
"""Facts of a training that its progress line shows."""


def run_study(
    study: StudySpec, store: LakeStore, session: RaySession, progress: Progress
) -> Report:
    """Make the trials that are not up to date; what fails is named, and the others go on.

    Raises:
        LeaseHeld: if another driver runs the study.
        RaywardError: if no trial can be planned, or no process fits or starts.
    """
    started_s = time.perf_counter()
    with store.lease(key(study)):
        trials = trials_of(study)
        with store.snapshot():
            planned = plan_study(study, store)
        wanted = set(planned.inputs["trial"].to_pylist())
        pending = [trial for trial in trials if trial.name in wanted]
        seconds = {"plan": time.perf_counter() - started_s}
        tally = _Tally()
        if pending:
            started_s = time.perf_counter()
            session.start()
            progress.start(study.name, len(trials), "trials", len(trials) - len(pending))
            _make_all(study, pending, store.root, progress, tally.note)
            seconds["trials"] = time.perf_counter() - started_s
            if study.against is not None:
                started_s = time.perf_counter()
                _compare(study, store, progress, tally)
                seconds["compare"] = time.perf_counter() - started_s
    status = "failed" if tally.failures else "published" if tally.done else "up_to_date"
    facts = {REJECTING: ", ".join(tally.rejecting)} if tally.rejecting else {}
    return Report(
        kind=study.kind,
        name=study.name,
        status=status,
        counts=planned.counts + Counts(done=tally.done, rejected=len(tally.failed)),
        unit="trials",
        seconds=seconds,
        facts=facts,
        failures=tally.failures,
    )


def _make_all(
    study: StudySpec, pending: list[Trial], lake: str, progress: Progress, note: Note
) -> None:
    """Make trials while the progress is shown, which ends with them; each is told as it ends."""
    try:
        for trial, end in _made(study, pending, lake, progress):
            failed = isinstance(end, RaywardError)
            progress.advance(0 if failed else 1, 1 if failed else 0)
            progress.note(note(trial, end))
    finally:
        progress.finish()


def _made(study: StudySpec, pending: list[Trial], lake: str, progress: Progress) -> Iterator[Ended]:
    """Make trials, those that train in one process each first."""
    by_size: dict[int, list[Trial]] = defaultdict(list)
    for trial in pending:
        by_size[trial.world_size].append(trial)
    board = open_board()
    watch = Watch(board, progress.note, metrics=partial(_metrics, study.name))
    try:
        for size in sorted(by_size):
            place = Workplace(lake, study.name, board, size, study.gpus_per_trial)
            yield from Crew(place, study.trials_at_once, watch).run(by_size[size])
    finally:
        board.remove()


def _metrics(study: str, kind: str) -> RunMetrics:
    """What records the metrics of one kind of the jobs of a study; a study has no run."""
    return RunMetrics((kind, study, study), has_gpu=False)


def _compare(study: StudySpec, store: LakeStore, progress: Progress, tally: _Tally) -> None:
    """Compare trials with one another, where the study says so."""
    with store.snapshot():
        pending = open_comparisons(study, store)
    if not pending:
        return
    progress.start(study.name, len(pending), "comparisons")
    _make_all(study, pending, store.root, progress, tally.note_comparison)
