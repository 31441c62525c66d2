"""The publish gate: whether a run's scores may become visible, and what moved if not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.plan import Counts
from schemas.protocols import Pool, Run, Store, Verdict
from schemas.specs.gate import Gate

_REFERENCE = """
WITH scorings AS (
    SELECT run_id, max(coalesce(facts ->> '$.night', strftime(recorded_at, '%Y-%m-%d'))) AS night
    FROM runs
    WHERE kind = 'score' AND key = $key AND spec ->> '$.dataset' = $dataset
    GROUP BY run_id HAVING arg_max(state, recorded_at) = 'published'
),
recent AS (
    SELECT DISTINCT night FROM scorings WHERE night < $night ORDER BY night DESC LIMIT $window
)
SELECT scores, night FROM predictions JOIN scorings USING (run_id)
WHERE model_id = $model_id AND night IN (SELECT night FROM recent)
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
        reference = store.query(
            _REFERENCE,
            {
                "key": "/".join(run.plan.key),
                "dataset": self.dataset,
                "model_id": self.bundle["model_id"],
                "night": run.plan.facts.get("night", store.night.isoformat()),
                "window": gate.window,
            },
        )
        nights = sorted(set(reference["night"].to_pylist()))
        findings.reference = _told_reference(reference.num_rows, nights)
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

    def _weigh(self, drift: Mapping[str, Any], findings: "_Findings") -> None:
        gate, psi, ks = self.gate, drift["psi"], drift["ks"]
        findings.note(f"population stability index of {psi['of']}", psi["value"], gate.psi)
        by_chance = ks["p_value"] >= gate.ks_p_value
        findings.note(
            f"Kolmogorov-Smirnov distance of {ks['of']}",
            ks["value"],
            None if by_chance else gate.ks,
            f" (p {ks['p_value']:.2g})",
        )
        if "class_share" in drift:
            share = drift["class_share"]
            findings.note(
                f"change of the share of {share['of']}",
                share["value"],
                gate.class_share,
                f" ({share['before']:.3g} to {share['now']:.3g})",
            )


class _Findings:
    """What a gate measured."""

    def __init__(self) -> None:
        self.moved: list[str] = []
        self.measured: list[dict[str, Any]] = []
        self.reference = ""
        self.too_little = ""

    def note(self, figure: str, value: float, limit: float | None, more: str = "") -> None:
        """Take a figure; one without a limit is told and holds nothing."""
        holds = limit is not None and value > limit
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


def _told_reference(images: int, nights: list[str]) -> str:
    if not nights:
        return "no images"
    span = nights[0] if len(nights) == 1 else f"{nights[0]} to {nights[-1]}"
    return f"{images:,} images of {len(nights)} {'night' if len(nights) == 1 else 'nights'}, {span}"
