"""A fortnight of nights, each followed by the analyst's queries, against a prediction of its own.

The prediction is plain sets and torch's own scores: what lies in the archive, which version has
scored it, what is held and what was rejected. It knows nothing of runs, plans or tables.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cluster.inline_pool import InlinePool
from cluster.lake.decisions import discard, list_runs
from cluster.lake.runs import LakeRun
from cluster.shards import ShardProcess, ShardTask, encode_rows
from cluster.storage import open_storage
from schemas.protocols import Report, Run
from schemas.specs.base import Execution
from tests.cluster.nights.told import Told
from tests.cluster.nights.world import World, day, scores_of

ARRIVALS = 10
BUDGET = 20
SETTINGS = {
    "scores.gate.psi": 4,  # ten images a night: chance alone makes about 9 (1/10 + 1/50)
    "scores.gate.ks": 0.7,
    "scores.gate.class_share": 0.6,
    "scores.gate.window": 6,
    "scores.gate.min_reference": 20,
    "scores.gate.min_compared": 10,
    "scores.budget.images": BUDGET,
    "scores.budget.slice_images": 10,
    "scores.execution.shard_images": 5,
}


class PowerCut(BaseException):
    """Ends everything, and nobody gets to say a word."""


class CutOff(InlinePool):
    """Computes two shards of a scoring, then the power goes."""

    def run_shards(self, run: Run, execution: Execution) -> None:
        if run.plan.kind != "score":
            super().run_shards(run, execution)
            return
        lake = run.storage.root  # type: ignore[attr-defined]
        lake_run = LakeRun(open_storage(lake), run.id, resumed=run.resumed)
        process = ShardProcess(lake, run.id, run.plan.kind, dict(run.plan.params))
        for shard in lake_run.pending()[:2]:
            process.run(ShardTask(shard, encode_rows(lake_run.rows(shard)), {}))
        raise PowerCut


class Prediction:
    """What the analyst must see, from what happened to the archive alone."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.catalogued: dict[str, str] = {}
        """What each file held when a night last saw it."""
        self.scored: dict[str, set[str]] = {}
        """Contents that each version scored, as the analyst sees it."""
        self.out_of_sight: set[str] = set()
        """Contents that are held, or that were rejected with a held run."""

    def look(self) -> None:
        """A night sees what lies in the archive."""
        archive = self.world.archive
        self.catalogued = {path: archive.content(path) for path in archive.pixels}

    def pending(self, model: str) -> list[str]:
        """Paths that a version has yet to score, the newest day first."""
        done = self.scored.setdefault(model, set()) | self.out_of_sight
        left = [path for path, content in self.catalogued.items() if content not in done]
        return sorted(left, key=lambda path: path[:10], reverse=True)

    def score(self, model: str, paths: list[str]) -> int:
        self.scored.setdefault(model, set()).update(self.catalogued[path] for path in paths)
        return len(paths)

    def seen(self) -> dict[str, str]:
        """By path: the newest version that scored what the file holds."""
        found = {}
        for path, content in self.catalogued.items():
            versions = [model for model, done in self.scored.items() if content in done]
            if versions:
                found[path] = max(versions)
        return found

    def check(self) -> None:
        """Compare with what the lake answers."""
        seen, expected = self.world.seen(), self.seen()
        assert {path: model for path, (model, _, _) in seen.items()} == expected
        for model, weights in self.world.models.items():
            paths = [path for path, by in expected.items() if by == model]
            if not paths:
                continue
            scores = scores_of([self.world.archive.pixels[path] for path in paths], weights)
            for path, (no, yes) in zip(paths, scores, strict=True):
                _, label, found = seen[path]
                assert found == pytest.approx((no, yes), abs=1e-5)
                assert label == ("yes" if yes >= 0.5 else "no")
        counted = self.world.query(
            "SELECT name || '@' || version AS model, count(*) AS n,"
            " count(DISTINCT image_id) AS images FROM predictions"
            " JOIN current_models USING (model_id) GROUP BY ALL"
        )
        assert {row["model"]: row["n"] for row in counted} == {
            model: len(done) for model, done in self.scored.items() if done
        }
        assert all(row["n"] == row["images"] for row in counted)


def scorings(reports: list[Report]) -> list[tuple[str, str, int, int]]:
    return [
        (one.facts["model"], one.status, one.counts.done, one.counts.deferred)
        for one in reports
        if one.kind == "score"
    ]


def states(world: World) -> Counter[tuple[str, str]]:
    rows = world.query(
        "SELECT any_value(facts ->> '$.night') AS night, arg_max(state, recorded_at) AS state"
        " FROM runs WHERE kind = 'score' GROUP BY run_id"
    )
    return Counter((row["night"], row["state"]) for row in rows)


def quiet_night(world: World, told: Prediction, number: int, model: str, **more: Any) -> None:
    """A night on which one version scores all there is."""
    told.look()
    expected = told.score(model, told.pending(model))
    reports, code = world.night(day(number), **more)
    assert (code, scorings(reports)) == (0, [(model, "published", expected, 0)])
    told.check()


def catching_up(told: Prediction, model: str, slices: list[int]) -> list[tuple[str, str, int, int]]:
    """What a version that takes slices reports."""
    left, expected = len(told.pending(model)), []
    for images in slices:
        left -= told.score(model, told.pending(model)[:images])
        expected.append((model, "published", images, left))
    return expected


def first_night(world: World, told: Prediction, number: int, slices: list[int]) -> None:
    """A night on which the only version takes slices of the archive."""
    told.look()
    expected = catching_up(told, "lungs@1", slices)
    reports, code = world.night(day(number))
    assert (code, scorings(reports)) == (0, expected)
    told.check()


def upgrade_night(world: World, told: Prediction, number: int, slices: list[int]) -> None:
    """A night on which version 1 scores what is new and version 2 takes slices of the archive."""
    told.look()
    fresh = told.score("lungs@1", told.pending("lungs@1"))
    expected = catching_up(told, "lungs@2", slices)
    reports, code = world.night(day(number))
    assert (code, scorings(reports)) == (0, [("lungs@1", "published", fresh, 0), *expected])
    told.check()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_fortnight(tmp_path: Path) -> None:
    world, bell = World(tmp_path, **SETTINGS), Told()
    archive, told = world.archive, Prediction(world)

    # Nights 1 and 2: an archive of three days, and one model that catches up with it.
    world.mark(world.train(4))
    for number in (-1, 0, 1):
        archive.arrive(day(number), ARRIVALS)
    first_night(world, told, 1, [10, 10])
    archive.arrive(day(2), ARRIVALS)
    first_night(world, told, 2, [10, 10])
    assert len(told.seen()) == 40

    # Night 3: two files changed.
    archive.arrive(day(3), ARRIVALS)
    for number in (3, 4):
        archive.write(f"{day(1)}/{number:02d}.png")
    quiet_night(world, told, 3, "lungs@1")
    assert len(told.scored["lungs@1"]) == 52

    # Nights 4 to 8: a new version catches up in slices, the newest studies first.
    world.mark(world.train(8))
    archive.arrive(day(4), ARRIVALS)
    upgrade_night(world, told, 4, [10, 10])
    assert {path[:10] for path, by in told.seen().items() if by == "lungs@2"} == {
        day(4).isoformat(), day(3).isoformat(),
    }  # fmt: skip
    newest = list_runs(world.store.storage)[0]
    assert (newest.model, newest.deferred) == ("lungs@2", 40)
    assert newest.progress == pytest.approx(20 / 60)

    archive.arrive(day(5), ARRIVALS)
    upgrade_night(world, told, 5, [10, 10])
    archive.arrive(day(6), ARRIVALS)
    archive.remove(f"{day(-1)}/07.png")
    upgrade_night(world, told, 6, [10, 10])
    archive.arrive(day(7), ARRIVALS)
    archive.write(f"{day(-1)}/02.png")
    upgrade_night(world, told, 7, [10, 10])
    archive.arrive(day(8), ARRIVALS)
    upgrade_night(world, told, 8, [10, 9])
    assert set(told.seen().values()) == {"lungs@2"}
    assert list_runs(world.store.storage)[0].progress is None

    # Night 9: a bad scanner. The gate holds what it made; version 1 has stepped down.
    bad = archive.arrive(day(9), ARRIVALS, veiled=True)
    told.look()
    told.out_of_sight.update(told.catalogued[path] for path in bad)
    reports, code = world.night(day(9), notifier=bell)
    assert (code, scorings(reports)) == (4, [("lungs@2", "held", ARRIVALS, 0)])
    (held,) = [one for one in reports if one.status == "held"]
    assert "Kolmogorov-Smirnov distance of yes 1 (p " in held.facts["gate"]
    assert f"reference: 99 images of 5 nights, {day(4)} to {day(8)}" in held.facts["gate"]
    assert bell.names == ["held"]
    assert not set(bad) & set(told.seen())
    told.check()

    # Night 10: the held images are left out; a file changed. Then somebody discards the run.
    archive.arrive(day(10), ARRIVALS)
    archive.write(f"{day(8)}/05.png")
    quiet_night(world, told, 10, "lungs@2")
    assert held.run_id is not None
    discard(world.store.storage, held.run_id)
    rejected = world.query("SELECT count(*) AS n, reason FROM rejects GROUP BY ALL")
    assert rejected == [{"n": ARRIVALS, "reason": "gate_discarded"}]
    told.check()

    # Night 11: the bad images come anew, and the power goes in the middle of the scoring.
    archive.arrive(day(9), ARRIVALS)
    cut_off = archive.arrive(day(11), ARRIVALS)
    with pytest.raises(PowerCut):
        world.night(day(11), pool=CutOff(world.lake, print), notifier=bell)
    told.look()
    told.check()
    assert not set(cut_off) & set(told.seen())

    # Night 12 does not take place; night 13 goes on with the cut-off run and does the rest once.
    archive.arrive(day(12), ARRIVALS)
    archive.arrive(day(13), ARRIVALS)
    interrupted = told.score("lungs@2", told.pending("lungs@2"))
    told.look()
    missed = told.score("lungs@2", told.pending("lungs@2"))
    reports, code = world.night(day(13), notifier=bell)
    assert (interrupted, missed) == (2 * ARRIVALS, 2 * ARRIVALS)
    assert (code, scorings(reports)) == (
        0,
        [("lungs@2", "published", interrupted, 0), ("lungs@2", "published", missed, 0)],
    )
    assert [one.counts.done for one in reports if one.kind == "ingest"] == [2 * ARRIVALS]
    told.check()

    archive.arrive(day(14), ARRIVALS)
    quiet_night(world, told, 14, "lungs@2")

    assert bell.names == ["held"]
    runs = {1: 2, 2: 2, 3: 1, 4: 3, 5: 3, 6: 3, 7: 3, 8: 3, 10: 1, 11: 1, 13: 1, 14: 1}
    published = {(day(number).isoformat(), "published"): n for number, n in runs.items()}
    assert states(world) == {**published, (day(9).isoformat(), "discarded"): 1}
    again, code = world.night(day(14))
    assert (code, {one.status for one in again}) == (0, {"up_to_date"})
    told.check()


@pytest.mark.timeout(60)
def test_three_nights(tmp_path: Path) -> None:
    """The fortnight's turns in short: an upgrade in slices, and a bad scanner's runs discarded."""
    world = World(tmp_path, **SETTINGS)
    archive, told = world.archive, Prediction(world)
    world.mark(world.train(8))
    for number in (0, 1):
        archive.arrive(day(number), ARRIVALS)
    first_night(world, told, 1, [10, 10])

    world.mark(world.train(4))
    archive.arrive(day(2), ARRIVALS)
    upgrade_night(world, told, 2, [10, 10])
    assert Counter(told.seen().values()) == {"lungs@2": 20, "lungs@1": 10}

    bad = archive.arrive(day(3), ARRIVALS, veiled=True)
    told.look()
    reports, code = world.night(day(3))
    assert code == 4
    left = len(told.pending("lungs@2")) - ARRIVALS
    assert scorings(reports) == [
        ("lungs@1", "held", ARRIVALS, 0), ("lungs@2", "held", ARRIVALS, left),
    ]  # fmt: skip
    told.out_of_sight.update(told.catalogued[path] for path in bad)
    told.check()

    # Both runs are discarded: version 2 has not caught up for that, and goes on in slices.
    for report in reports:
        if report.status == "held" and report.run_id is not None:
            discard(world.store.storage, report.run_id)
    archive.arrive(day(4), ARRIVALS)
    upgrade_night(world, told, 4, [10, 10])
    assert set(told.seen().values()) == {"lungs@2"}
    nights = {1: 2, 2: 3, 4: 3}
    published = {(day(number).isoformat(), "published"): n for number, n in nights.items()}
    assert states(world) == {**published, (day(3).isoformat(), "discarded"): 2}
