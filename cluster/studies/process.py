"""A process that makes trials, one after the other; what it loaded for one serves the next."""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.inline_pool import InlinePool
from cluster.kinds import KINDS
from cluster.lake.leases import LAPSE_S
from cluster.lake.store import LakeStore
from cluster.pool import RayPool
from cluster.progress import Progress
from cluster.ray_session import RaySession
from schemas.errors import CommitConflict, LeaseHeld
from schemas.protocols import Pool, Report
from schemas.specs import JobSpec
from schemas.studies import Trial

_PATIENCE_S = 1.5 * LAPSE_S
"""How long a lease may be another's: processes of a killed driver may outlive it for a moment, and
trials that come out as the same model score it one after the other."""
_PAUSE_S = 1.0
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


class TrialProcess:
    """Makes trials of a study in a lake."""

    def __init__(self, lake: str, study: str, *, together: bool) -> None:
        """``together`` says that a trial trains in several processes, which Ray starts for it."""
        self._store = LakeStore.open(lake)
        self._warnings: list[str] = []
        self._pool: Pool = InlinePool(lake, self._warnings.append, study)
        if together:
            self._pool = RayPool(lake, RaySession(), Progress(io.StringIO(), quiet=True))

    def run(self, trial: Trial) -> TrialEnd:
        """Do those jobs of a trial that are not done yet, in order."""
        started_s = time.perf_counter()
        self._warnings.clear()
        limit = trial.jobs[0].max_reject_share
        reports = [self._do(job) for job in trial.jobs]
        return TrialEnd(
            seconds=time.perf_counter() - started_s,
            worked=sum(report.status != "up_to_date" for report in reports),
            facts=reports[0].facts,
            warnings=tuple(self._warnings),
            rejecting=tuple(one.kind for one in reports if one.reject_share > limit),
        )

    def _do(self, job: JobSpec) -> Report:
        """Do one job, patient with others that are at the same work."""
        patient_until_s = time.monotonic() + _PATIENCE_S
        conflicts = 0
        while True:
            try:
                return KINDS[job.kind].run(job, self._pool, self._store)
            except LeaseHeld:
                if time.monotonic() > patient_until_s:
                    raise
            except CommitConflict:
                conflicts += 1
                if conflicts == _CONFLICTS:
                    raise
            time.sleep(_PAUSE_S)
