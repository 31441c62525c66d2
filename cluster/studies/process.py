"""A process that makes trials, one after the other; what it loaded for one serves the next."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from cluster.foreign import told
from cluster.inline_pool import InlinePool
from cluster.kinds import KINDS
from cluster.lake.store import LakeStore
from cluster.studies.together import TogetherPool
from cluster.train import Listener
from cluster.train_order import BoardLink, Noted
from cluster.watching.logs import configure_logs, log_fields
from cluster.watching.metrics import Ended
from schemas.errors import CommitConflict, LakeError, LeaseHeld, RaywardError
from schemas.protocols import Pool, Report
from schemas.specs import JobSpec
from schemas.specs.train import TrainSpec
from schemas.studies import Trial

_PAUSE_S = 1.0
"""How long is waited before another's lease is looked at again, at first."""
_LONGEST_PAUSE_S = 15.0
_CONFLICTS = 3
"""How often a job is planned anew because another one's commit came in between."""


@dataclass(frozen=True)
class TrialEnd:
    """What a process tells of a trial that ended well."""

    seconds: float
    worked: int
    """Jobs that had something to do."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Findings of its network's training."""
    warnings: tuple[str, ...] = ()
    rejecting: tuple[str, ...] = ()
    """Kinds of its jobs that rejected more images than they may."""


@dataclass(frozen=True)
class Unready:
    """What a process tells that can't work where it is; its trial was not begun."""

    node: str
    """Where it is."""
    cause: RaywardError


@dataclass(frozen=True)
class TrialNews:
    """A note of a trial that is being made."""

    trial: str
    """The trial's text."""
    noted: Noted | Ended
    """Figures of an epoch of its training, a word, or a shard or training that is done."""
    epochs: int = 0
    """Epochs of that training at most."""


@dataclass(frozen=True)
class Workplace:
    """Where a study's processes work, and for whom."""

    lake: str
    study: str
    board: BoardLink
    world_size: int = 1
    """Processes that make one trial together; Ray starts them when there are several."""
    gpus: float = 0.0
    """GPUs of each of them."""


class TrialProcess:
    """Makes trials of a study in a lake."""

    def __init__(self, place: Workplace) -> None:
        """Opens nothing yet: a process that can't, says so when it is given a trial."""
        self._place = place
        self._store: LakeStore | None = None
        self._trial = ""
        self._epochs = 0
        self._warnings: list[str] = []
        self._pool: Pool = (
            InlinePool(place.lake, self._warnings.append, place.study, self._note, self._note)
            if place.world_size == 1
            else TogetherPool(place.lake, place.study, Listener(self._hear, self._note), place.gpus)
        )

    def run(self, trial: Trial) -> TrialEnd | Unready:
        """Do those jobs of a trial that are not done yet, in order."""
        started_s = time.perf_counter()
        try:
            store = self._store = self._store or LakeStore.open(self._place.lake)
        except RaywardError as error:
            return Unready(_node(), error)
        except Exception as error:  # noqa: BLE001 - what a store raises that can't be reached
            return Unready(_node(), _closed(self._place.lake, error))
        self._trial = trial.text
        self._warnings.clear()
        configure_logs()
        with log_fields({"job": self._place.study, "trial": trial.text}):
            reports = [self._do(job, store) for job in trial.jobs]
        limit = trial.jobs[0].max_reject_share
        return TrialEnd(
            seconds=time.perf_counter() - started_s,
            worked=sum(report.status != "up_to_date" for report in reports),
            facts=reports[0].facts,
            warnings=tuple(self._warnings),
            rejecting=tuple(one.kind for one in reports if one.reject_share > limit),
        )

    def _do(self, job: JobSpec, store: LakeStore) -> Report:
        """Do one job, patient with others that are at the same work.

        A lease is refused only while its holder renews it, so waiting ends when the holder does:
        trials that come out as the same model score it one after the other, however long it takes.
        """
        self._epochs = _epochs(job)
        pause_s, refusals, conflicts = _PAUSE_S, 0, 0
        while True:
            try:
                return KINDS[job.kind].run(job, self._pool, store)
            except LeaseHeld as error:
                refusals += 1
                if refusals == 2:  # a moment is not worth a word
                    self._note(f"waits with `{job.kind}` for another at this work: {error.got}")
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except CommitConflict:
                conflicts += 1
                if conflicts == _CONFLICTS:
                    raise
                time.sleep(_PAUSE_S)

    def _hear(self, noted: Noted) -> None:
        """Take what processes tell that train together."""
        if isinstance(noted, str):
            self._warnings.append(noted)
        else:
            self._note(noted)

    def _note(self, noted: Noted | Ended) -> None:
        self._place.board.note(TrialNews(self._trial, noted, self._epochs))


def _epochs(job: JobSpec) -> int:
    if not isinstance(job, TrainSpec):
        return 0
    return sum(stage.epochs for stage in job.stages) or job.epochs


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _closed(lake: str, error: Exception) -> LakeError:
    return LakeError(
        "The lake can't be opened from this machine",
        where=lake,
        got=told(error),
        remedy="every machine needs the lake's path, or the credentials of its store",
    )
