"""Metrics of runs for Prometheus, recorded by the driver and scraped off its node's Ray.

Workers hand their figures to the driver with each shard, and only the driver records: Ray labels a
series with the process that records it, and what a process recorded in the seconds before it is
killed would be lost. Labels name kinds, jobs, stages and reasons, of which there are few, and never
an image or a patient. Runs are named by gauges alone: Ray drops a gauge 20 s after its last word,
and keeps a counter for as long as its node lives.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ray.util.metrics import Counter, Gauge, Histogram

from workers.stages import Stage

_JOB = ("kind", "job")
_RUN = ("kind", "job", "run_id")
_WINDOW_S = 60.0
"""Shards that ended within it make the busy share of GPUs."""


@dataclass(frozen=True)
class Described:
    """A metric: what it counts, and by which labels."""

    type: str
    """counter, gauge or histogram."""
    text: str
    labels: tuple[str, ...]


METRICS: Mapping[str, Described] = MappingProxyType(
    {
        "rayward_images": Described("counter", "inputs that ended with a result", _JOB),
        "rayward_rejects": Described(
            "counter", "inputs that did not become a result", (*_JOB, "reason")
        ),
        "rayward_bytes_read": Described("counter", "bytes fetched from sources or prepared", _JOB),
        "rayward_stage_seconds": Described(
            "counter", "seconds that processes spent in a stage", (*_JOB, "stage")
        ),
        "rayward_shard_seconds": Described(
            "histogram", "seconds from a shard's start to its receipt", _JOB
        ),
        "rayward_deaths": Described(
            "counter", "processes that ended while they had a shard", (*_JOB, "cause")
        ),
        "rayward_stalls": Described("counter", "shards found standing still", (*_JOB, "stage")),
        "rayward_oldest_shard_seconds": Described(
            "gauge", "age of the oldest shard in flight", _RUN
        ),
        "rayward_stalled_shards": Described("gauge", "shards that stand still now", _RUN),
        "rayward_processes": Described("gauge", "processes that have a shard", _RUN),
        "rayward_waiting_processes": Described(
            "gauge", "processes asked for that have not started", _RUN
        ),
        "rayward_shards_left": Described("gauge", "shards that are not done, as they stand", _RUN),
        "rayward_gpu_busy_share": Described(
            "gauge", "share of their time that processes with a GPU spent in the network", _RUN
        ),
    }
)
_SHARD_S = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0]
"""Bounds of the histogram's buckets."""


def exported_names() -> set[str]:
    """The names under which Ray's metrics port shows them."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    return {f"ray_{name}{end}" for name, one in METRICS.items() for end in endings[one.type]}


@dataclass(frozen=True)
class ShardFigures:
    """What a shard took, as its process tells the driver."""

    bytes_read: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Rejects by reason."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage."""
    wall_s: float = 0.0


@dataclass(frozen=True)
class Ended:
    """Work that ended in another process, as the one counts it that records metrics."""

    kind: str
    """Of the job."""
    done: int
    """Inputs that ended with a result."""
    figures: ShardFigures


@dataclass(frozen=True)
class Standing:
    """How a run stands, in numbers."""

    ages_s: Sequence[float]
    """Ages of the shards in flight."""
    waiting: int
    """Processes asked for that have not started."""
    left: int
    """Shards that are not done."""
    stalled: int


class RunMetrics:
    """Records the metrics of one run."""

    def __init__(
        self,
        labels: tuple[str, str, str],
        *,
        has_gpu: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``labels`` are the run's kind, job and id."""
        self._job = dict(zip(_JOB, labels[:2], strict=True))
        self._run = dict(zip(_RUN, labels, strict=True))
        self._has_gpu, self._clock = has_gpu, clock
        self._ended: deque[tuple[float, float, float]] = deque()
        """When a shard ended, its seconds in the network, and all its seconds."""
        self._counters = {
            name: Counter(name, one.text, one.labels) for name, one in _of_type("counter").items()
        }
        self._gauges = {
            name: Gauge(name, one.text, one.labels) for name, one in _of_type("gauge").items()
        }
        described = METRICS["rayward_shard_seconds"]
        self._shard_s = Histogram(
            "rayward_shard_seconds", described.text, _SHARD_S, described.labels
        )

    def shard_ended(self, done: int, figures: ShardFigures) -> None:
        """Count a shard that is done, with ``done`` results."""
        self._count("rayward_images", done)
        self._count("rayward_bytes_read", figures.bytes_read)
        for reason, count in figures.reasons.items():
            self._count("rayward_rejects", count, {"reason": reason})
        for stage, seconds in figures.seconds.items():
            self._count("rayward_stage_seconds", seconds, {"stage": stage})
        self._shard_s.observe(figures.wall_s, self._job)
        if self._has_gpu:  # only the busy share of GPUs takes them away again
            network_s = figures.seconds.get(Stage.NETWORK, 0.0)
            self._ended.append((self._clock(), network_s, figures.wall_s))

    def died(self, cause: str) -> None:
        """Count a process that ended while it had a shard."""
        self._count("rayward_deaths", 1, {"cause": cause})

    def stalled(self, stage: str) -> None:
        """Count a shard found standing still."""
        self._count("rayward_stalls", 1, {"stage": stage})

    def show(self, standing: Standing) -> None:
        """Set the gauges; to be called every few seconds, or Ray drops them."""
        self._set("rayward_oldest_shard_seconds", max(standing.ages_s, default=0.0))
        self._set("rayward_processes", len(standing.ages_s))
        self._set("rayward_waiting_processes", standing.waiting)
        self._set("rayward_shards_left", standing.left)
        self._set("rayward_stalled_shards", standing.stalled)
        if self._has_gpu:
            self._set("rayward_gpu_busy_share", self.gpu_busy_share())

    def gpu_busy_share(self) -> float:
        """Share of the time of the last minute's shards that went into the network."""
        now_s = self._clock()
        while self._ended and now_s - self._ended[0][0] > _WINDOW_S:
            self._ended.popleft()
        whole_s = sum(wall_s for _, _, wall_s in self._ended)
        busy_s = sum(network_s for _, network_s, _ in self._ended)
        return busy_s / whole_s if whole_s else 0.0

    def _count(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        if value > 0:  # Ray refuses to count nothing
            self._counters[name].inc(value, {**self._job, **(labels or {})})

    def _set(self, name: str, value: float) -> None:
        self._gauges[name].set(value, self._run)


def _of_type(kind: str) -> Mapping[str, Described]:
    return {name: one for name, one in METRICS.items() if one.type == kind}
