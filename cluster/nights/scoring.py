"""A score job of a night: every marked model, new ones in slices until they caught up.

Of the marked versions of a bundle, the newest one that has caught up with the archive scores what
is new. A newer one re-scores the archive in slices meanwhile, the newest studies first; once it
left nothing over, it takes the older one's place. All of it is read off the lake, so a night that
broke off or never was changes nothing but the date.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jobs.score
from cluster.lake.marking import marked_bundles
from cluster.lake.store import LakeStore
from cluster.nights.budget import Purse
from cluster.nights.history import gpu_seconds, has_caught_up, waiting_runs
from cluster.nights.night import Night
from schemas.errors import BundleError, LeaseHeld, RaywardError
from schemas.plan import Plan, run_fingerprint
from schemas.protocols import Pool, Report
from schemas.specs.score import NIGHTLY, ScoreSpec


@dataclass(frozen=True)
class Scoring:
    """One model's part of a score job."""

    spec: ScoreSpec
    """The job, with the model's name and version."""
    key: tuple[str, ...]
    fingerprint: str
    """With the key, what names the model's work in all nights alike."""
    in_slices: bool = False
    """Whether the model has yet to catch up with the archive."""

    @property
    def limit(self) -> int | None:
        """Images that a night may score at most, where that is said."""
        budget = self.spec.budget
        return budget.images if self.in_slices and budget else None


def is_for_nights(spec: ScoreSpec) -> bool:
    """Whether a score job stands for scorings that a night decides on."""
    return spec.model == NIGHTLY or spec.budget is not None


def scorings_of(spec: ScoreSpec, store: LakeStore) -> list[Scoring]:
    """What a score job comes to, as things stand in the lake.

    Raises:
        BundleError: if there is no such bundle, or none is marked.
    """
    found: list[Scoring] = []
    for bundles in _wanted(spec, store).values():
        versions = [_scoring(spec, bundle) for bundle in bundles]
        standing = next((one for one in versions if _caught_up(one, store)), None)
        if standing is not None:
            found.append(standing)
        if standing is not versions[0]:
            found.append(replace(versions[0], in_slices=True))
    return found


def plan_scoring(scoring: Scoring, store: LakeStore) -> Plan:
    """What a scoring would do tonight."""
    return jobs.score.plan(scoring.spec, store, scoring.limit)


def run_scorings(spec: ScoreSpec, store: LakeStore, pool: Pool, night: Night) -> Iterator[Report]:
    """Score with every model there is for tonight; one that fails does not keep others from it.

    Raises:
        BundleError: if there is no such bundle, or none is marked.
        LeaseHeld: if another driver scores with one of the models.
    """
    with store.snapshot():
        scorings = scorings_of(spec, store)
    for scoring in scorings:
        try:
            if scoring.in_slices:
                yield from _run_slices(scoring, store, pool, night)
            else:
                yield from until_caught_up(_runner(scoring.spec, store, pool))
        except LeaseHeld:
            raise
        except RaywardError as error:
            model = scoring.spec.model
            facts, failures = {"model": model}, {model: str(error)}
            yield Report(spec.kind, spec.name, "failed", facts=facts, failures=failures)


def until_caught_up(run: Callable[[], Report]) -> Iterator[Report]:
    """Run a job, and again after a run that an earlier driver began: more may have come since."""
    report = run()
    yield report
    while report.resumed:
        report = run()
        if report.status != "up_to_date":
            yield report


def _runner(spec: ScoreSpec, store: LakeStore, pool: Pool) -> Callable[[], Report]:
    return lambda: jobs.score.run(spec, pool, store)


def _wanted(spec: ScoreSpec, store: LakeStore) -> dict[str, list[Mapping[str, Any]]]:
    """Bundles by name, newest first."""
    if spec.model != NIGHTLY:
        bundle = store.bundle(spec.model)
        return {bundle["name"]: [bundle]}
    marked = marked_bundles(store)
    if not marked:
        raise BundleError(
            "No bundle is marked for nights",
            where=store.root,
            remedy="mark one: rayward models NAME@VERSION --nightly",
        )
    return marked


def _scoring(spec: ScoreSpec, bundle: Mapping[str, Any]) -> Scoring:
    named = spec.model_copy(update={"model": f"{bundle['name']}@{bundle['version']}"})
    identity = jobs.score.identity(named, bundle)
    return Scoring(named, jobs.score.key(named, bundle), run_fingerprint(spec.kind, identity))


def _caught_up(scoring: Scoring, store: LakeStore) -> bool:
    if has_caught_up(store, scoring.key, scoring.fingerprint):
        return True
    plan = jobs.score.plan(scoring.spec, store)
    return not plan.inputs.num_rows and not plan.counts.held


def _run_slices(scoring: Scoring, store: LakeStore, pool: Pool, night: Night) -> Iterator[Report]:
    spec = scoring.spec
    waiting = waiting_runs(store, scoring.key, scoring.fingerprint)
    if waiting:
        yield _waits(spec, f"a decision on run {waiting[0]}: rayward publish, or rayward discard")
        return
    purse, reports = Purse(spec.budget), 0
    while (limit := purse.next_slice(night.seconds_left)) != 0:
        report = jobs.score.run(spec, pool, store, limit)
        reports += 1
        if reports == 1 or report.status != "up_to_date":
            yield report
        if report.status != "published" or not (report.counts.deferred or report.resumed):
            return
        if not (report.counts.done or report.resumed):
            return  # what is left may be what can't be read tonight, again and again
        purse.take(report, _gpu_s(report, scoring, store))
    if not reports:
        yield _waits(spec, "the next night: this one closed")


def _gpu_s(report: Report, scoring: Scoring, store: LakeStore) -> float:
    """What a slice cost; where that was not measured, the GPUs asked for while shards ran."""
    spec = scoring.spec
    if spec.budget is None or spec.budget.gpu_hours is None or report.run_id is None:
        return 0.0
    measured = gpu_seconds(store, scoring.key, report.run_id)
    if measured is not None:
        return measured
    gpus = spec.execution.gpus_per_worker * (spec.execution.workers or 1)
    return gpus * report.seconds.get("shards", 0.0)


def _waits(spec: ScoreSpec, what: str) -> Report:
    facts = {"model": spec.model, "waits for": what}
    return Report(spec.kind, spec.name, "waiting", facts=facts)
