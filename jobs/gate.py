"""The publish gate: whether a run's scores may become visible, and what moved if not."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from schemas.plan import Counts
from schemas.protocols import Pool, Run, Store, Verdict
from schemas.reasons import RunState
from schemas.specs.gate import Gate

_SCORES = """
SELECT scores FROM predictions
WHERE model_id = $model_id AND list_contains($runs, run_id)
"""


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
        return findings.verdict()

    def _count(self, outcomes: Counts, findings: "_Findings") -> None:
        gate, worked = self.gate, outcomes.done + outcomes.rejected
        share = outcomes.rejected / worked if worked else 0.0
        findings.note("reject share", share, gate.reject_share)
        if outcomes.done < gate.min_count:
            findings.moved.append(f"{outcomes.done:,} images scored, at least {gate.min_count:,}")

    def _compare(self, run: Run, pool: Pool, store: Store, findings: "_Findings") -> None:
        gate = self.gate
        scores = run.written("predictions", ["scores"])
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
        """The published runs of the last nights before the run's own, by night."""
        tonight = _night_of(run.plan.facts, store.night)
        found: dict[str, list[str]] = {}
        for row in store.runs_of(run.plan.key):
            night = _night_of(json.loads(row["facts"] or "{}"), row["recorded_at"].date())
            of_dataset = json.loads(row["spec"]).get("dataset") == self.dataset
            if row["state"] != RunState.PUBLISHED or not of_dataset or night >= tonight:
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
            found = drift[name]
            more = f" (p {found['p_value']:.2g})"
            if "before" in found:
                more = f" ({found['before']:.3g} to {found['now']:.3g}, p {found['p_value']:.2g})"
            by_chance = found["p_value"] >= gate.p_value
            figure = f"{words} {found['of']}"
            findings.note(figure, found["value"], limit, more, counts=not by_chance)


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
        """Take a figure; one without a limit, or that does not count, holds nothing."""
        holds = counts and limit is not None and value > limit
        self.measured.append({"figure": figure, "value": value, "limit": limit, "holds": holds})
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


def _night_of(facts: Mapping[str, Any], otherwise: date) -> str:
    return str(facts.get("night", otherwise.isoformat()))


def _told_reference(images: int, nights: list[str]) -> str:
    if not nights:
        return "no images"
    span = nights[0] if len(nights) == 1 else f"{nights[0]} to {nights[-1]}"
    return f"{images:,} images of {len(nights)} {'night' if len(nights) == 1 else 'nights'}, {span}"
