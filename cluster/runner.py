"""Runs the jobs of a file in order, and says what each would do."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cluster.kinds import KINDS
from cluster.lake.store import LakeStore
from cluster.needs import direct_needs
from cluster.nights.at_work import AtWork
from cluster.nights.night import Night
from cluster.nights.scoring import (
    is_for_nights,
    plan_scoring,
    run_scorings,
    scorings_of,
    until_caught_up,
)
from cluster.nights.untold import note_told, untold_reports
from cluster.pool import RayPool
from cluster.progress import Progress
from cluster.ray_session import RaySession
from cluster.studies.planning import plan_study
from cluster.studies.running import REJECTING, run_study
from schemas.errors import BundleError, SourceError, SplitError, UsageError
from schemas.jobfile import JobFile
from schemas.plan import Plan
from schemas.protocols import Pool, Report
from schemas.specs import JobSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.study import StudySpec

EXIT_FAILED, EXIT_REJECTS, EXIT_HELD = 1, 3, 4


@dataclass(frozen=True)
class Workplace:
    """Where the jobs of a file run, and in which night."""

    store: LakeStore
    pool: Pool
    night: Night
    study: Callable[[StudySpec], Report]
    """Runs a study, which brings processes of its own."""
    at_work: AtWork = field(default_factory=AtWork)
    """Told which job is at work."""


def run_jobs(
    job_file: JobFile,
    *,
    only: Sequence[str],
    address: str | None,
    progress: Progress,
    night: Night | None = None,
    at_work: AtWork | None = None,
) -> Iterator[Report]:
    """Run the jobs of a file in order; yields each report as its job ends.

    ``at_work`` is told which job that is, at any moment.

    After a job that ends as failed, as a study of which a trial did, later jobs do not run. A score
    job of a night has a report for each model and slice, and a job that goes on with an earlier
    driver's run one more where it finds more to do.

    Raises:
        RaywardError: of the first job that fails as a whole; later jobs do not run.
    """
    selected = select(job_file, only)
    night = night or Night.begin(job_file.night)
    store = LakeStore.open(job_file.lake, create=True, night=night.date)
    session = RaySession(address)
    with RayPool(store.root, session, progress) as pool:
        place = Workplace(
            store,
            pool,
            night,
            lambda study: run_study(study, store, session, progress),
            at_work or AtWork(),
        )
        yield from work_through(selected, place)


def work_through(selected: Sequence[JobSpec], place: Workplace) -> Iterator[Report]:
    """Run jobs in order at a place that is there already.

    A held run that an earlier driver committed and then told nobody of is reported once more.

    Raises:
        RaywardError: of the first job that fails as a whole; later jobs do not run.
    """
    held: list[Report] = []
    try:
        yield from _work_through(selected, place, held)
    except Exception:
        note_told(place.store.storage, held)
        raise
    # At the very end: a driver that dies before it leaves no exit code behind, so the next one
    # tells again.
    note_told(place.store.storage, held)


def _work_through(
    selected: Sequence[JobSpec], place: Workplace, held: list[Report]
) -> Iterator[Report]:
    for spec in place.at_work.through(selected):
        failed = False
        for report in _run(spec, place, {one.run_id for one in held if one.run_id}):
            failed = failed or report.status == "failed"
            yield report
            if report.status == "held":
                held.append(report)
        if failed:
            return


def _run(spec: JobSpec, place: Workplace, told: Collection[str]) -> Iterator[Report]:
    """Run a job; ``told`` are held runs that were reported already."""
    if isinstance(spec, ScoreSpec):
        yield from untold_reports(spec, place.store.storage, told)
    if isinstance(spec, StudySpec):
        yield place.study(spec)
    elif isinstance(spec, ScoreSpec) and is_for_nights(spec):
        yield from run_scorings(spec, place.store, place.pool, place.night)
    else:
        yield from until_caught_up(lambda: KINDS[spec.kind].run(spec, place.pool, place.store))


def plan_jobs(
    job_file: JobFile, only: Sequence[str], at_work: AtWork | None = None
) -> Iterator[Report]:
    """Say what each job would do as things stand; writes nothing and starts no Ray.

    A job that needs what an earlier one has yet to make is reported as waiting for it: what it
    would do is only known then.
    """
    store = LakeStore.peek(job_file.lake)
    unmade: list[JobSpec] = []
    for spec in (at_work or AtWork()).through(select(job_file, only)):
        waits_for = ", ".join(one.name for one in direct_needs(spec, unmade))
        try:
            with store.snapshot():
                plans = _plans(spec, store)
        except (BundleError, SourceError, SplitError):
            if not waits_for:
                raise
            plans = []
        if waits_for or any(plan.inputs.num_rows for plan in plans):
            unmade.append(spec)
        if waits_for and not any(plan.inputs.num_rows for plan in plans):
            facts = {"waits for": waits_for}
            yield Report(kind=spec.kind, name=spec.name, status="waiting", facts=facts)
            continue
        for plan in plans:
            yield _planned(spec, plan, waits_for)


def _planned(spec: JobSpec, plan: Plan, waits_for: str) -> Report:
    """What a job would do at once; after those it waits for, there may be more."""
    more = {"and what comes of": waits_for} if waits_for else {}
    return Report(
        kind=spec.kind,
        name=spec.name,
        status="planned" if plan.inputs.num_rows else "up_to_date",
        counts=replace(plan.counts, done=plan.counts.done + plan.inputs.num_rows),
        unit=plan.unit,
        facts=dict(plan.facts) | ({} if spec.kind == "study" else {"shards": plan.shards}) | more,
    )


def _plans(spec: JobSpec, store: LakeStore) -> list[Plan]:
    """What a job would do; a score job of a night, what each model would."""
    if isinstance(spec, StudySpec):
        return [plan_study(spec, store)]
    if isinstance(spec, ScoreSpec) and is_for_nights(spec):
        return [plan_scoring(one, store) for one in scorings_of(spec, store)]
    return [KINDS[spec.kind].plan(spec, store)]


def select(job_file: JobFile, only: Sequence[str]) -> list[JobSpec]:
    """The jobs named in ``only``, or all, in the order of the file.

    Raises:
        UsageError: if a name is none of the file's.
    """
    names = [spec.name for spec in job_file.jobs]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise UsageError(
            "No such job in the file", got=", ".join(unknown), remedy=f"jobs: {', '.join(names)}"
        )
    return [spec for spec in job_file.jobs if not only or spec.name in only]


def exit_code(reports: Sequence[Report], job_file: JobFile) -> int:
    """The exit code of a file whose jobs all ended."""
    if any(report.status == "failed" for report in reports):
        return EXIT_FAILED
    limits = {spec.name: spec.max_reject_share for spec in job_file.jobs}
    if any(report.status == "held" for report in reports):
        return EXIT_HELD
    # A study counts trials; of their images it only says which trials rejected too many.
    if any(one.reject_share > limits[one.name] or REJECTING in one.facts for one in reports):
        return EXIT_REJECTS
    return 0
