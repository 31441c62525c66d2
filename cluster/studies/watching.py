"""What a study shows of its trials while they are made: an epoch now and then, and warnings.

What they have done is counted here as well: the driver alone records metrics.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.studies.process import TrialNews
from cluster.train import told_epoch
from cluster.train_order import BoardLink
from cluster.watching.metrics import Ended, RunMetrics

_EVERY_S = 20.0
"""How often a trial's epochs are shown at most; a trial that ends before is told of at its end."""
_MONITORED = ("auc", "accuracy")
"""Figures of the validation part; the best so far of the first that is there is shown."""


@dataclass
class _Shown:
    since_s: float
    best: float | None = None


class Watch:
    """Reads the board of a study and tells what is new."""

    def __init__(
        self,
        board: BoardLink,
        say: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
        metrics: Callable[[str], RunMetrics] | None = None,
    ) -> None:
        """``metrics`` makes what records the metrics of a kind of job; without it nothing does."""
        self.say = say
        self._board, self._clock, self._metrics = board, clock, metrics
        self._trials: dict[str, _Shown] = {}
        self._kinds: dict[str, RunMetrics] = {}

    def look(self) -> None:
        """Tell what was noted since the last look."""
        for news in self._board.fresh():
            self._tell(news)

    def forget(self, trial: str) -> None:
        """A trial has ended."""
        self._trials.pop(trial, None)

    def _tell(self, news: TrialNews) -> None:
        if isinstance(news.noted, Ended):
            self._count(news.noted)
            return
        if isinstance(news.noted, str):
            self.say(f"{news.trial}: {news.noted}")
            return
        now_s = self._clock()
        shown = self._trials.setdefault(news.trial, _Shown(now_s))
        best = _note_best(shown, news.noted)
        if now_s - shown.since_s >= _EVERY_S:
            shown.since_s = now_s
            done = int(news.noted["epoch"]) + 1
            self.say(f"{news.trial}: {told_epoch(done, news.epochs, news.noted)}{best}")

    def _count(self, end: Ended) -> None:
        if self._metrics is None:
            return
        if end.kind not in self._kinds:
            self._kinds[end.kind] = self._metrics(end.kind)
        self._kinds[end.kind].shard_ended(end.done, end.figures)


def _note_best(shown: _Shown, figures: Mapping[str, float]) -> str:
    name = next((one for one in _MONITORED if one in figures), None)
    if name is None:
        return ""
    value = figures[name]
    shown.best = value if shown.best is None else max(shown.best, value)
    return f", best {name} {shown.best:.4g}"
