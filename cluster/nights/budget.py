"""How much of a budget a night has left, and how large the next slice may be."""

from schemas.protocols import Report
from schemas.specs.gate import Budget

_SECONDS_AN_HOUR = 3600.0


class Purse:
    """The budget of one model for one night."""

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self._images = 0
        self._gpu_s = 0.0
        self._slice_s = 0.0

    def take(self, report: Report, gpu_s: float) -> None:
        """Count a slice that ended."""
        self._images += report.counts.done + report.counts.rejected
        self._gpu_s += gpu_s
        self._slice_s = max(self._slice_s, sum(report.seconds.values()))

    def next_slice(self, seconds_left: float | None) -> int | None:
        """Images of the next slice: 0 where nothing is left, none for all there are.

        ``seconds_left`` of the night must do for a slice as long as the longest so far.
        """
        if self._budget is None:
            return None
        if seconds_left is not None and seconds_left <= self._slice_s:
            return 0
        limits = [self._budget.slice_images]
        if self._budget.images is not None:
            limits.append(self._budget.images - self._images)
        if self._budget.gpu_hours is not None:
            left_s = self._budget.gpu_hours * _SECONDS_AN_HOUR - self._gpu_s
            if left_s <= 0:
                return 0
            if self._gpu_s:
                limits.append(int(left_s * self._images / self._gpu_s))
        return max(min(limits), 0)
