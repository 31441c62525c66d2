"""Runs the jobs of a file in order, and says what each would do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import jobs.clean
import jobs.evaluate
import jobs.ingest
import jobs.phantoms
import jobs.prepare
import jobs.score
import jobs.split
import jobs.train
from cluster.lake.store import LakeStore
from cluster.pool import RayPool
from cluster.progress import Progress
from cluster.ray_session import RaySession
from schemas.errors import BundleError, SourceError, SplitError, UsageError
from schemas.jobfile import JobFile
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store
from schemas.specs import JobSpec


@dataclass(frozen=True)
class Kind:
    """How a kind is planned and run; each takes the spec of its own kind."""

    plan: Callable[[Any, Store], Plan]
    run: Callable[[Any, Pool, Store], Report]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "phantoms": Kind(jobs.phantoms.plan, jobs.phantoms.run),
        "ingest": Kind(jobs.ingest.plan, jobs.ingest.run),
        "clean": Kind(jobs.clean.plan, jobs.clean.run),
        "prepare": Kind(jobs.prepare.plan, jobs.prepare.run),
        "split": Kind(jobs.split.plan, jobs.split.run),
        "train": Kind(jobs.train.plan, jobs.train.run),
        "score": Kind(jobs.score.plan, jobs.score.run),
        "evaluate": Kind(jobs.evaluate.plan, jobs.evaluate.run),
    }
)
"""The table of kinds: add a module here and its spec to `schemas.specs.SPECS`."""

EXIT_REJECTS, EXIT_HELD = 3, 4


def run_jobs(
    job_file: JobFile, *, only: Sequence[str], address: str | None, progress: Progress
) -> Iterator[Report]:
    """Run the jobs of a file in order; yields each report as its job ends.

    Raises:
        RaywardError: of the first job that fails; later jobs do not run.
    """
    selected = select(job_file, only)
    store = LakeStore.open(job_file.lake, create=True)
    with RayPool(store.root, RaySession(address), progress) as pool:
        for spec in selected:
            yield KINDS[spec.kind].run(spec, pool, store)


def plan_jobs(job_file: JobFile, only: Sequence[str]) -> Iterator[Report]:
    """Say what each job would do as things stand; writes nothing and starts no Ray.

    A job that needs what an earlier one has yet to make is reported as waiting for it.
    """
    store = LakeStore.peek(job_file.lake)
    unmade: list[str] = []
    for spec in select(job_file, only):
        try:
            with store.snapshot():
                plan = KINDS[spec.kind].plan(spec, store)
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
            facts={**plan.facts, "shards": plan.shards},
        )


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
    limits = {spec.name: spec.max_reject_share for spec in job_file.jobs}
    if any(report.status == "held" for report in reports):
        return EXIT_HELD
    if any(report.reject_share > limits[report.name] for report in reports):
        return EXIT_REJECTS
    return 0
