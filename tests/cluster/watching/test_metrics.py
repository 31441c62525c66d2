"""What the driver counts, and under which labels."""

from typing import Any

import pytest

from cluster.watching import metrics
from cluster.watching.metrics import (
    METRICS,
    RunMetrics,
    ShardFigures,
    Standing,
    exported_names,
)
from schemas.reasons import RejectReason

LABELS = ("score", "nightly", "R1")


class Recorded:
    """Stands in for Ray's metrics: what was recorded, by name and labels."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[str, ...]], float] = {}

    def make(self, name: str, text: str, *rest: Any) -> Any:
        labels = rest[-1]

        class One:
            @staticmethod
            def add(value: float, tags: dict[str, str]) -> None:
                assert set(tags) == set(labels), name
                assert value > 0
                key = (name, tuple(tags.values()))
                self.values[key] = self.values.get(key, 0.0) + value

            @staticmethod
            def set(value: float, tags: dict[str, str]) -> None:
                assert set(tags) == set(labels), name
                self.values[name, tuple(tags.values())] = value

            inc = observe = add

        return One()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    found = Recorded()
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, kind, found.make)
    return found


def test_a_shard_is_counted_once_by_kind_and_job(recorded: Recorded) -> None:
    one = RunMetrics(LABELS, has_gpu=False)
    figures = ShardFigures(
        bytes_read=500,
        reasons={RejectReason.CORRUPT.value: 2},
        seconds={"decode": 1.5, "network": 0.0},
        wall_s=2.0,
    )
    one.shard_ended(7, figures)
    one.shard_ended(0, ShardFigures(wall_s=1.0))
    job = LABELS[:2]
    assert recorded.values == {
        ("rayward_images", job): 7,
        ("rayward_bytes_read", job): 500,
        ("rayward_rejects", (*job, "corrupt")): 2,
        ("rayward_stage_seconds", (*job, "decode")): 1.5,
        ("rayward_shard_seconds", job): 3.0,
    }


def test_only_gauges_name_a_run(recorded: Recorded) -> None:
    one = RunMetrics(LABELS, has_gpu=False)
    one.show(Standing(ages_s=(3.0, 8.0), waiting=1, left=5, stalled=0))
    assert recorded.values == {
        ("rayward_oldest_shard_seconds", LABELS): 8.0,
        ("rayward_processes", LABELS): 2,
        ("rayward_waiting_processes", LABELS): 1,
        ("rayward_shards_left", LABELS): 5,
        ("rayward_stalled_shards", LABELS): 0,
    }
    named = {name for name, metric in METRICS.items() if "run_id" in metric.labels}
    assert named == {name for name, metric in METRICS.items() if metric.type == "gauge"}
    allowed = {"kind", "job", "run_id", "stage", "reason", "cause"}
    assert all(set(metric.labels) <= allowed for metric in METRICS.values())


def test_the_busy_share_is_that_of_the_last_minute(recorded: Recorded) -> None:
    now = [0.0]
    one = RunMetrics(LABELS, has_gpu=True, clock=lambda: now[0])
    assert one.gpu_busy_share() == 0.0
    one.shard_ended(1, ShardFigures(seconds={"network": 1.0}, wall_s=10.0))
    now[0] = 40.0
    one.shard_ended(1, ShardFigures(seconds={"network": 9.0}, wall_s=10.0))
    assert one.gpu_busy_share() == 0.5
    now[0] = 61.0
    assert one.gpu_busy_share() == 0.9
    one.show(Standing((), 0, 0, 0))
    assert recorded.values["rayward_gpu_busy_share", LABELS] == 0.9


@pytest.mark.usefixtures("recorded")
def test_without_a_gpu_nothing_piles_up() -> None:
    one = RunMetrics(LABELS, has_gpu=False)
    for _ in range(100):
        one.shard_ended(1, ShardFigures(seconds={"network": 1.0}, wall_s=10.0))
        one.show(Standing((), 0, 0, 0))
    assert one.gpu_busy_share() == 0.0, "nothing is kept for a share that nobody is shown"


def test_names_are_those_of_rays_port() -> None:
    names = exported_names()
    assert {"ray_rayward_images_total", "ray_rayward_shard_seconds_bucket"} <= names
    assert "ray_rayward_oldest_shard_seconds" in names
    assert "ray_rayward_images" not in names
