"""Runs the jobs of a file in order, and says what each would do."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cluster.kinds import KINDS
from cluster.lake.store import LakeStore
from cluster.pool import RayPool
from cluster.progress import Progress
from cluster.ray_session import RaySession
from cluster.studies.planning import plan_study
from cluster.studies.running import run_study
from schemas.errors import BundleError, SourceError, SplitError, UsageError
from schemas.jobfile import JobFile
from schemas.plan import Plan
from schemas.protocols import Report
from schemas.specs import JobSpec
from schemas.specs.study import StudySpec

EXIT_FAILED, EXIT_REJECTS, EXIT_HELD = 1, 3, 4


def run_jobs(
    job_file: JobFile, *, only: Sequence[str], address: str | None, progress: Progress
) -> Iterator[Report]:
    """Run the jobs of a file in order; yields each report as its job ends.

    After a job that ends as failed, as a study of which a trial did, later jobs do not run.

    Raises:
        RaywardError: of the first job that fails as a whole; later jobs do not run.
    """
    selected = select(job_file, only)
    store = LakeStore.open(job_file.lake, create=True)
    session = RaySession(address)
    with RayPool(store.root, session, progress) as pool:
        for spec in selected:
            if isinstance(spec, StudySpec):
                report = run_study(spec, store, session, progress)
            else:
                report = KINDS[spec.kind].run(spec, pool, store)
            yield report
            if report.status == "failed":
                return


def plan_jobs(job_file: JobFile, only: Sequence[str]) -> Iterator[Report]:
    """Say what each job would do as things stand; writes nothing and starts no Ray.

    A job that needs what an earlier one has yet to make is reported as waiting for it.
    """
    store = LakeStore.peek(job_file.lake)
    unmade: list[str] = []
    for spec in select(job_file, only):
        try:
            with store.snapshot():
                plan = _plan(spec, store)
        except (BundleError, SourceError, SplitError):
            if not unmade:
                raise
            yield _waiting(spec, unmade)
            continue
        if unmade and not plan.inputs.num_rows and not plan.counts.input:
            yield _waiting(spec, unmade)
            continue
        if plan.inputs.num_rows:
            unmade.append(spec.name)
        yield Report(
            kind=spec.kind,
            name=spec.name,
            status="planned" if plan.inputs.num_rows else "up_to_date",
            counts=replace(plan.counts, done=plan.counts.done + plan.inputs.num_rows),
            unit=plan.unit,
            facts=dict(plan.facts) | ({} if spec.kind == "study" else {"shards": plan.shards}),
        )


def _plan(spec: JobSpec, store: LakeStore) -> Plan:
    if isinstance(spec, StudySpec):
        return plan_study(spec, store)
    return KINDS[spec.kind].plan(spec, store)


def _waiting(spec: JobSpec, unmade: list[str]) -> Report:
    """A job that can't be planned yet; later ones wait for it in turn."""
    facts = {"waits for": ", ".join(unmade)}
    unmade.append(spec.name)
    return Report(kind=spec.kind, name=spec.name, status="waiting", facts=facts)


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
    if any(report.reject_share > limits[report.name] for report in reports):
        return EXIT_REJECTS
    return 0
