"""The publish gate: each limit by itself, its reference, and what becomes of a held run."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from scipy import stats

from cluster.lake.decisions import discard, list_runs, publish
from jobs.gate import chance_of_rejects
from schemas.plan import ShardResult
from schemas.protocols import Run
from schemas.tables import rows_of
from tests.jobs.toy_scores import Nights, ToyPool


@pytest.fixture(scope="module")
def first_night(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Thirty images were scored on the first night."""
    world = Nights(tmp_path_factory.mktemp("first"))
    world.add_bundle()
    world.arrive(range(30))
    assert world.score(1).facts["gate"].startswith("passed unjudged: no images to compare with")
    return world


@pytest.fixture
def nights(first_night: Nights, tmp_path: Path) -> Nights:
    """A lake of the test's own, after the first night."""
    return first_night.copy(tmp_path)


def test_a_run_like_those_before_it_passes(nights: Nights) -> None:
    nights.arrive(range(100, 120))
    report = nights.score(2, psi=0.01, ks=0.05, class_share=0.01)
    assert report.status == "published"
    assert report.facts["gate"] == "passed; reference: 30 images of 1 night, 2026-11-01"
    assert [one["value"] for one in report.facts["_gate"]] == pytest.approx([0, 0, 0, 0], abs=1e-2)
    assert nights.visible() == 50


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"psi": 0.5}, r"population stability index of ill \d\.\d+ \(p .*\), at most 0.5"),
        ({"ks": 0.3}, r"Kolmogorov-Smirnov distance of ill 1 \(p .*\), at most 0.3"),
        (
            {"class_share": 0.1, "p_value": 0.1},
            r"change of the share of ill 0.2 \(0.8 to 1, p 0.069\), at most 0.1",
        ),
    ],
)
def test_what_moved_is_held_and_told(nights: Nights, limit: dict[str, float], told: str) -> None:
    numbers = range(100, 120)
    nights.arrive(numbers)
    report = nights.score(2, ToyPool(moved=frozenset(numbers)), **limit)
    assert report.status == "held"
    assert report.facts["gate"].startswith("held: ")
    assert report.facts["gate"].endswith("; reference: 30 images of 1 night, 2026-11-01")
    assert re.search(told, report.facts["gate"])
    assert nights.visible() == 30


def test_a_gap_that_chance_explains_holds_nothing(nights: Nights) -> None:
    nights.arrive(range(101, 106))
    tilted = ToyPool(moved=frozenset({103, 104, 105}))
    report = nights.score(2, tilted, ks=0.3, p_value=1e-4)
    gap = next(one for one in report.facts["_gate"] if one["figure"].startswith("Kolm"))
    assert gap["value"] > 0.3
    assert (report.status, gap["holds"]) == ("published", False)


def test_rejects_beyond_their_share_hold_a_run(nights: Nights) -> None:
    nights.arrive(range(100, 110))
    report = nights.score(2, ToyPool(bad=frozenset(range(100, 105))), reject_share=0.05)
    assert report.status == "held"
    assert "reject share 0.5 (5 of 10, p 6.4e-05), at most 0.05" in report.facts["gate"]
    nights.arrive(range(200, 210))
    passed = nights.score(2, ToyPool(bad=frozenset({200})), reject_share=0.1)
    assert passed.status == "published"


def test_one_bad_file_of_a_small_night_holds_nothing(nights: Nights) -> None:
    nights.arrive(range(100, 110))
    report = nights.score(2, ToyPool(bad=frozenset({100})), reject_share=0.05)
    assert report.status == "published"
    share = report.facts["_gate"][0]
    assert (share["figure"], share["value"], share["holds"]) == ("reject share", 0.1, False)
    nights.arrive(range(200, 210))
    strict = nights.score(3, ToyPool(bad=frozenset({200})), reject_share=0)
    assert strict.status == "held", "where none is allowed, one is one too many"


@pytest.mark.parametrize(
    ("rejected", "worked", "share"),
    [
        (0, 10, 0.05), (1, 10, 0.05), (5, 10, 0.05), (10, 10, 0.05), (40, 1000, 0.05),
        (60, 1000, 0.05), (70_000, 1_000_000, 0.05), (50_400, 1_000_000, 0.05), (3, 9, 0.9),
        (1, 9, 0.0), (9, 9, 1.0), (30_000, 100_000, 0.3),
    ],
)  # fmt: skip
def test_the_chance_of_rejects_is_that_of_scipy(rejected: int, worked: int, share: float) -> None:
    expected = stats.binomtest(rejected, worked, share, alternative="greater").pvalue
    found = chance_of_rejects(rejected, worked, share)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_a_run_of_too_few_is_held(nights: Nights) -> None:
    nights.arrive(range(100, 110))
    report = nights.score(2, ToyPool(bad=frozenset({100})), min_count=11)
    assert (report.status, report.counts.rejected) == ("held", 1)
    assert "10 images came, at least 11" in report.facts["gate"]


def test_a_night_whose_only_image_is_unreadable_wakes_nobody(nights: Nights) -> None:
    """It came, so `min_count` is content; one reject of one is what chance makes."""
    nights.arrive(range(100, 101))
    report = nights.score(2, ToyPool(bad=frozenset({100})), reject_share=0.05)
    assert (report.status, report.counts.rejected) == ("published", 1)
    assert report.facts["gate"] == "passed unjudged: no image was scored"


def test_a_night_of_which_nothing_can_be_read_is_held(nights: Nights) -> None:
    nights.arrive(range(100, 110))
    report = nights.score(2, ToyPool(bad=frozenset(range(100, 110))), reject_share=0.05)
    assert report.status == "held"
    assert report.facts["gate"].startswith("held: reject share 1 (10 of 10, p ")


def test_with_too_little_to_compare_the_file_decides(nights: Nights) -> None:
    numbers = range(100, 110)
    moved = ToyPool(moved=frozenset(range(100, 400)))
    nights.arrive(numbers)
    report = nights.score(2, moved, ks=0.1, min_reference=31)
    assert report.status == "published"
    assert report.facts["gate"] == (
        "passed unjudged: 30 images of 1 night, 2026-11-01 to compare with, 31 are needed"
    )
    nights.arrive(range(200, 203))
    report = nights.score(3, moved, ks=0.1, short_history="hold")
    assert report.status == "held"
    assert "too little to compare: 3 images scored, 5 are compared" in report.facts["gate"]


@pytest.mark.slow
def test_the_reference_is_the_last_nights_that_scored(nights: Nights) -> None:
    for night in (3, 4, 9):
        nights.arrive(range(night * 100, night * 100 + 10))
        nights.score(night)
    nights.arrive(range(2000, 2010))
    report = nights.score(9, window=2)  # the night itself is no reference
    assert report.facts["gate"].endswith("20 images of 2 nights, 2026-11-03 to 2026-11-04")
    nights.arrive(range(3000, 3010))
    report = nights.score(10, window=99)
    assert report.facts["gate"].endswith("70 images of 4 nights, 2026-11-01 to 2026-11-09")


def test_the_reference_is_of_the_same_data_set_and_published(nights: Nights) -> None:
    nights.arrive(range(500, 530), dataset="elsewhere")
    assert "no images to compare" in nights.score_in("elsewhere", 2, None).facts["gate"]
    nights.arrive(range(100, 110))
    held = nights.score(3, ToyPool(moved=frozenset(range(100, 110))), ks=0.3)
    assert held.status == "held"
    nights.arrive(range(200, 210))
    report = nights.score(4)
    assert report.facts["gate"] == "passed; reference: 30 images of 1 night, 2026-11-01"
    assert report.counts.held == 10, "its images are left out of the next plan"
    assert nights.visible() == 70
    assert held.run_id is not None
    publish(nights.store.storage, held.run_id)
    assert nights.visible() == 80
    nights.arrive(range(300, 310))
    report = nights.score(5)
    assert report.facts["gate"].endswith("50 images of 3 nights, 2026-11-01 to 2026-11-04")


def test_a_decision_keeps_what_was_recorded(nights: Nights) -> None:
    nights.arrive(range(100, 110))
    report = nights.score(2, ToyPool(bad=frozenset({104})), reject_share=0)
    assert report.run_id is not None
    publish(nights.store.storage, report.run_id)
    (status,) = [one for one in list_runs(nights.store.storage) if one.run_id == report.run_id]
    assert (status.state, status.rejected, status.inputs) == ("published", 1, 40)
    facts = nights.store.query(
        "SELECT DISTINCT facts ->> '$.gate' AS gate, counts, seconds <> '{}' AS timed FROM runs"
        " WHERE run_id = $run",
        {"run": report.run_id},
    ).to_pylist()
    assert len(facts) == 1
    assert facts[0]["gate"].startswith("held: reject share")
    assert facts[0]["timed"]


def test_a_run_that_was_cut_off_is_judged_when_it_ends(nights: Nights) -> None:
    nights.arrive(range(100, 110))

    class Cut(ToyPool):
        def finish(self, run: Run) -> None:
            raise KeyboardInterrupt

    moved = frozenset(range(100, 110))
    with pytest.raises(KeyboardInterrupt):
        nights.score(2, Cut(moved=moved), ks=0.3)
    assert nights.visible() == 30
    report = nights.score(3, ToyPool(), ks=0.3)
    assert (report.status, report.resumed) == ("held", True)
    assert report.facts["night"] == "2026-11-02", "the night that planned it"


def test_discarded_runs_are_no_nights_of_the_reference(nights: Nights) -> None:
    """Else a fortnight of discards would empty it, and a bad run would pass unjudged."""
    for night in (2, 3):
        numbers = range(night * 100, night * 100 + 10)
        nights.arrive(numbers)
        held = nights.score(night, ToyPool(moved=frozenset(numbers)), ks=0.3)
        assert held.run_id is not None
        discard(nights.store.storage, held.run_id)
    nights.arrive(range(1000, 1010))
    report = nights.score(4, ToyPool(moved=frozenset(range(1000, 1010))), ks=0.3, window=2)
    assert report.status == "held"
    assert report.facts["gate"].endswith("reference: 30 images of 1 night, 2026-11-01")


def test_nights_without_a_score_are_none_of_the_reference(nights: Nights) -> None:
    for night in (2, 3):
        numbers = range(night * 100, night * 100 + 3)
        nights.arrive(numbers)
        report = nights.score(night, ToyPool(bad=frozenset(numbers)))
        assert (report.status, report.counts.rejected) == ("published", 3)
    nights.arrive(range(1000, 1010))
    report = nights.score(4, window=2)
    assert report.facts["gate"].endswith("reference: 30 images of 1 night, 2026-11-01")


class Broken(ToyPool):
    """Its scores are no numbers."""

    def _compute(self, rows: pa.Table, model_id: str) -> ShardResult:
        made = super()._compute(rows, model_id)
        predictions = made.tables["predictions"].to_pylist()
        predictions[0]["scores"] = [math.nan, math.nan]
        return ShardResult({"predictions": rows_of("predictions", predictions)}, made.done, 0)


def test_scores_that_are_no_numbers_hold_a_run(nights: Nights) -> None:
    nights.arrive(range(100, 110))
    report = nights.score(2, Broken())
    assert report.status == "held"
    assert "1 images have scores that are no finite numbers" in report.facts["gate"]
    assert report.run_id is not None
    publish(nights.store.storage, report.run_id)
    nights.arrive(range(200, 210))
    assert nights.score(3).facts["gate"] == (
        "passed; reference: 39 images of 2 nights, 2026-11-01 to 2026-11-02"
    )


class Several(ToyPool):
    """Measures what it is told."""

    def __init__(self, **drift: Any) -> None:
        super().__init__()
        self._drift = drift

    def measure_drift(self, *of: Any) -> Mapping[str, Any]:
        return self._drift


def test_a_class_that_moved_less_but_beyond_chance_holds_a_run(nights: Nights) -> None:
    """Four classes of 200 and 60 labels; that which moved most did so by chance."""
    a = {"of": "a", "value": 1 / 6, "p_value": 0.027, "before": 0.5, "now": 1 / 3}
    d = {"of": "d", "value": 0.164, "p_value": 1e-7, "before": 0.0, "now": 0.164}
    nights.arrive(range(100, 110))
    assert nights.score(2, Several(class_share=[a]), class_share=0.15).status == "published"
    nights.arrive(range(200, 210))
    report = nights.score(3, Several(class_share=[a, d]), class_share=0.15)
    assert report.status == "held"
    assert "change of the share of d 0.164 (0 to 0.164, p 1e-07)" in report.facts["gate"]


def test_a_figure_that_is_no_number_holds_a_run(nights: Nights) -> None:
    nights.arrive(range(100, 110))
    figure = {"of": "ill", "value": math.nan, "p_value": math.nan}
    report = nights.score(2, Several(psi=[figure]), psi=0.25)
    assert report.status == "held"
    assert "population stability index of ill nan" in report.facts["gate"]
    assert report.facts["_gate"][-1]["value"] is None, "JSON has no NaN"
