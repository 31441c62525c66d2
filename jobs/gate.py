"""The publish gate: whether a run's scores may become visible, and what moved if not."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.plan import Counts
from schemas.protocols import Pool, Run, Store, Verdict
from schemas.reasons import RunState
from schemas.specs.gate import Gate

_SCORES = """
SELECT scores FROM predictions
WHERE model_id = $model_id AND list_contains($runs, run_id) AND isfinite(list_sum(scores))
"""
_NEGLIGIBLE = 1e-17


@dataclass(frozen=True)
class Gatekeeper:
    """Judges the runs of one model in one data set."""

    gate: Gate
    dataset: str
    bundle: Mapping[str, Any]
    """The model's row of `models`."""

    def judge(self, run: Run, pool: Pool, store: Store) -> Verdict:
        """Say whether a run whose shards are all done keeps to the gate's limits."""
        findings = _Findings()
        outcomes = run.outcomes()
        self._count(outcomes, findings)
        if outcomes.done:
            self._compare(run, pool, store, findings)
        else:
            findings.too_little = "no image was scored"
        return findings.verdict()

    def _count(self, outcomes: Counts, findings: "_Findings") -> None:
        gate, worked = self.gate, outcomes.done + outcomes.rejected
        share = outcomes.rejected / worked if worked else 0.0
        p_value = 1.0
        if gate.reject_share is not None and worked:
            p_value = chance_of_rejects(outcomes.rejected, worked, gate.reject_share)
        more = f" ({outcomes.rejected:,} of {worked:,}, p {p_value:.2g})"
        counts = p_value < gate.p_value
        findings.note("reject share", share, gate.reject_share, more, counts=counts)
        if worked < gate.min_count:
            findings.moved.append(f"{worked:,} images came, at least {gate.min_count:,}")

    def _compare(self, run: Run, pool: Pool, store: Store, findings: "_Findings") -> None:
        gate = self.gate
        scores = run.written("predictions", ["scores"])
        broken = _count_broken(scores)
        if broken:
            findings.moved.append(f"{broken:,} images have scores that are no finite numbers")
            return
        nights = self._nights(run, store)
        runs = [run_id for some in nights.values() for run_id in some]
        asked = {"model_id": self.bundle["model_id"], "runs": runs}
        reference = store.query(_SCORES, asked)
        findings.reference = _told_reference(reference.num_rows, sorted(nights))
        few = []
        if scores.num_rows < gate.min_compared:
            few.append(f"{scores.num_rows:,} images scored, {gate.min_compared:,} are compared")
        if reference.num_rows < gate.min_reference:
            few.append(f"{findings.reference} to compare with, {gate.min_reference:,} are needed")
        if few:
            findings.too_little = "; ".join(few)
            if gate.short_history == "hold":
                findings.moved.append(f"too little to compare: {findings.too_little}")
            return
        self._weigh(pool.measure_drift(scores, reference, self.bundle), findings)

    def _nights(self, run: Run, store: Store) -> dict[str, list[str]]:
        """The published runs with scores of the last nights before the run's own, by night."""
        tonight = _night_of(run.plan.facts, store.night)
        found: dict[str, list[str]] = {}
        for row in store.runs_of(run.plan.key):
            night = _night_of(json.loads(row["facts"] or "{}"), row["recorded_at"].date())
            of_dataset = json.loads(row["spec"]).get("dataset") == self.dataset
            if row["state"] != RunState.PUBLISHED or not of_dataset or night >= tonight:
                continue
            if not json.loads(row["counts"])["done"]:
                continue
            found.setdefault(night, []).append(row["run_id"])
            if len(found) > self.gate.window:  # the rest is older still
                break
        return {night: found[night] for night in sorted(found)[-self.gate.window :]}

    def _weigh(self, drift: Mapping[str, Any], findings: "_Findings") -> None:
        gate = self.gate
        figures = [
            ("psi", "population stability index of", gate.psi),
            ("ks", "Kolmogorov-Smirnov distance of", gate.ks),
            ("class_share", "change of the share of", gate.class_share),
        ]
        for name, words, limit in figures:
            if name not in drift:
                continue
            # A class that moved less may have moved beyond chance where the first one did not.
            first = drift[name][0]
            found = next(self._beyond(drift[name], limit), first)
            more = f" (p {found['p_value']:.2g})"
            if "before" in found:
                more = f" ({found['before']:.3g} to {found['now']:.3g}, p {found['p_value']:.2g})"
            by_chance = found["p_value"] >= gate.p_value
            figure = f"{words} {found['of']}"
            findings.note(figure, found["value"], limit, more, counts=not by_chance)

    def _beyond(
        self, figures: Sequence[Mapping[str, Any]], limit: float | None
    ) -> Iterator[Mapping[str, Any]]:
        """Figures beyond a limit that chance does not explain, the largest first."""
        for one in figures:
            within = limit is None or one["value"] <= limit
            if not within and not one["p_value"] >= self.gate.p_value:
                yield one


class _Findings:
    """What a gate measured."""

    def __init__(self) -> None:
        self.moved: list[str] = []
        self.measured: list[dict[str, Any]] = []
        self.reference = ""
        self.too_little = ""

    def note(
        self, figure: str, value: float, limit: float | None, more: str = "", *, counts: bool = True
    ) -> None:
        """Take a figure; one without a limit, or that does not count, holds nothing.

        One that is no finite number says that something is wrong, so it holds.
        """
        finite = math.isfinite(value)
        holds = limit is not None and (not finite or (counts and value > limit))
        told = value if finite else None
        self.measured.append({"figure": figure, "value": told, "limit": limit, "holds": holds})
        if holds:
            self.moved.append(f"{figure} {value:.3g}{more}, at most {limit:g}")

    def verdict(self) -> Verdict:
        """The verdict with its reasons, for people and for later queries."""
        against = f"; reference: {self.reference}" if self.reference else ""
        if self.moved:
            text = f"held: {'; '.join(self.moved)}{against}"
        elif self.too_little:
            text = f"passed unjudged: {self.too_little}"
        else:
            text = f"passed{against}"
        facts: dict[str, Any] = {"gate": text, "_gate": self.measured}
        return Verdict(bool(self.moved), facts)


def chance_of_rejects(rejected: int, worked: int, share: float) -> float:
    """How often chance rejects so many or more of ``worked`` images, each with odds ``share``.

    The upper tail of the binomial distribution; `scipy.stats.binomtest` gives the same, but takes
    a second to import.
    """
    if not rejected:
        return 1.0
    if share in (0.0, 1.0):
        return share
    if rejected <= worked * share:  # the other tail is the smaller one
        return 1 - chance_of_rejects(worked - rejected + 1, worked, 1 - share)
    log_term = math.lgamma(worked + 1) - math.lgamma(rejected + 1)
    log_term -= math.lgamma(worked - rejected + 1)
    log_term += rejected * math.log(share) + (worked - rejected) * math.log1p(-share)
    term = total = math.exp(log_term)
    odds = share / (1 - share)
    for count in range(rejected, worked):
        term *= odds * (worked - count) / (count + 1)
        total += term
        if term <= _NEGLIGIBLE * total:  # beyond the mean terms only shrink
            break
    return min(total, 1.0)


def _count_broken(scores: pa.Table) -> int:
    """Rows of which some score is no finite number."""
    lists = scores["scores"].combine_chunks()
    finite = pc.is_finite(lists.flatten())
    rows = pc.list_parent_indices(lists).filter(pc.invert(finite))
    return len(pc.unique(rows))


def _night_of(facts: Mapping[str, Any], otherwise: date) -> str:
    return str(facts.get("night", otherwise.isoformat()))


def _told_reference(images: int, nights: list[str]) -> str:
    if not nights:
        return "no images"
    span = nights[0] if len(nights) == 1 else f"{nights[0]} to {nights[-1]}"
    return f"{images:,} images of {len(nights)} {'night' if len(nights) == 1 else 'nights'}, {span}"
