"""Progress of a running job on stderr: a bar on a terminal, otherwise a line now and then."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from cluster.watching.logs import log_line, wants_json

_WINDOW_S = 60.0
"""The rate is that of the last minute: start-up and slow patches are forgotten."""


@dataclass
class Pace:
    """How far a job is and how fast it goes; times are seconds of one monotonic clock."""

    total: int
    unit: str
    settled: int
    """Units that were done before this driver began; they say nothing about its rate."""
    started_s: float
    done: int = 0
    rejected: int = 0
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def advance(self, done: int, rejected: int, now_s: float) -> None:
        """Count units that ended."""
        if not done and not rejected:
            return
        if not self._marks:
            self._marks.append((self.started_s, 0))
        self.done += done
        self.rejected += rejected
        self._marks.append((now_s, self.done + self.rejected))
        while len(self._marks) > 2 and now_s - self._marks[1][0] > _WINDOW_S:
            self._marks.popleft()

    @property
    def ended(self) -> int:
        """Units that ended, those of earlier drivers included."""
        return self.settled + self.done + self.rejected

    @property
    def share(self) -> float:
        """Share of the units that ended."""
        return self.ended / self.total if self.total else 1.0

    @property
    def rate(self) -> float:
        """Units a second over the last minute; 0 before the first end."""
        if len(self._marks) < 2:
            return 0.0
        (begun_s, before), (now_s, after) = self._marks[0], self._marks[-1]
        return (after - before) / (now_s - begun_s) if now_s > begun_s else 0.0

    def figures(self) -> dict[str, object]:
        """The same in numbers, for logs."""
        numbers = {"ended": self.ended, "total": self.total, "rejected": self.rejected}
        return numbers | {"unit": self.unit, "per_s": round(self.rate, 3)}

    def __str__(self) -> str:
        text = f"{self.ended:,} of {self.total:,} {self.unit} ({self.share:.0%})"
        if self.rate:
            digits = 0 if self.rate >= 10 else 1
            text += f", {self.rate:,.{digits}f} {self.unit}/s"
        if self.rejected:
            text += f", {self.rejected:,} rejected"
        # The first ends came late, after processes had started: they would promise too long.
        if self.rate and len(self._marks) > 2 and self.ended < self.total:
            text += f", {duration((self.total - self.ended) / self.rate)} left"
        return text


class Progress:
    """Shows one job after the other.

    ``quiet`` silences the lines of a stream that is no terminal.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = 10.0,
    ) -> None:
        self._stream, self._clock, self._every_s = stream, clock, every_s
        self._in_json = wants_json()
        self._has_bar = stream.isatty() and not self._in_json
        self._lines = not quiet and not self._has_bar
        self._bar: tuple[RichProgress, TaskID] | None = None
        self._pace: Pace | None = None
        self._job, self._shown_s, self._shown = "", 0.0, 0

    def start(self, job: str, total: int, unit: str, settled: int = 0) -> None:
        """Begin a job of ``total`` units, of which ``settled`` ended under an earlier driver."""
        self.finish()
        now_s = self._clock()
        self._job, self._shown_s, self._shown = job, now_s, settled
        self._pace = Pace(total, unit, settled, now_s)
        if self._has_bar:
            # Left alone, rich would send what others print on stdout to its own stream.
            bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[pace]}", markup=False),
                console=Console(file=self._stream),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            task = bar.add_task(job, total=total, completed=settled, pace=str(self._pace))
            bar.start()
            self._bar = bar, task

    def advance(self, done: int, rejected: int = 0) -> None:
        """Count units that ended: ``done`` with a result, ``rejected`` without."""
        if self._pace is None:
            return
        now_s = self._clock()
        self._pace.advance(done, rejected, now_s)
        if self._bar:
            bar, task = self._bar
            bar.update(task, completed=self._pace.ended, pace=str(self._pace))
        elif self._lines and now_s >= self._shown_s + self._wait_s():
            self._shown_s, self._shown = now_s, self._pace.ended
            self._print(f"{self._job}: {self._pace}")

    def _wait_s(self) -> float:
        """Seconds between lines; without news they only show that something is alive."""
        news = self._pace is not None and self._pace.ended > self._shown
        return self._every_s if news else 6 * self._every_s

    def note(self, text: str, level: str = "info") -> None:
        """Say something about the job at work, such as the figures of an epoch.

        ``level`` is that of the log line; a warning is said even where progress is not shown.
        """
        if self._bar:
            self._bar[0].console.print(f"{self._job}: {text}", markup=False, highlight=False)
        elif self._lines or level != "info":
            self._print(f"{self._job}: {text}", level)

    def finish(self) -> None:
        """End the job; its report says the rest."""
        if self._bar:
            self._bar[0].stop()
        self._bar = self._pace = None

    def _print(self, line: str, level: str = "info") -> None:
        if self._in_json:
            pace = self._pace
            fields = {"job": self._job} | (pace.figures() if pace else {})
            line = log_line(line, fields, level)
        print(line, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people read them: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
