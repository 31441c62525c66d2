"""What a table of a study is made of: cells, rows, and the settings that validation chose."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from jobs.report.outcomes import Figure
from schemas.specs.study_table import Statistic

_LEVEL = 0.95

Labels = Mapping[str, str]
"""Label by axis."""


@dataclass(frozen=True)
class Cell:
    """A figure, or the mean of several trials' figures."""

    value: float | None
    """None where no trial has the figure."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval: of a single trial over patients, of a mean by Student's t over trials. Of
    a median the smallest and the largest figure."""
    trials: int = 0
    """Trials it rests on."""
    expected: int = 0
    """Trials it should rest on."""
    is_best: bool = False
    is_chosen: bool = False
    """Belongs to the setting that the validation part chose."""


@dataclass(frozen=True)
class Row:
    """A row: its labels, one an axis, and its cells."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    is_mean: bool = False


@dataclass(frozen=True)
class Choice:
    """The setting that is best on the validation part, among those that answer one question."""

    labels: Labels
    metric: str
    value: float
    trials: int
    figures: tuple[tuple[str, Cell], ...] = ()
    """The figures of the setting that the table shows, by what they are."""


@dataclass(frozen=True)
class StudyTable:
    """A table as it is shown."""

    name: str
    row_axes: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    """Labels of each column, one an axis."""
    rows: tuple[Row, ...]
    part: str
    statistic: Statistic
    choices: tuple[Choice, ...]
    """One for each question, as for each split; none where there is nothing to choose from."""


def summary_cell(figures: Sequence[Figure], expected: int, statistic: Statistic = "mean") -> Cell:
    """The figure of one trial with its own interval, or the mean or median of several.

    The interval of a mean is Student's t over the trials: mean ± t(0.975, n - 1) s / √n. Beside a
    median stand the smallest and the largest figure.
    """
    if not figures:
        return Cell(None, expected=expected)
    if len(figures) == 1:
        (one,) = figures
        return Cell(one.value, one.low, one.high, 1, expected)
    values = [one.value for one in figures]
    count = len(values)
    if statistic == "median":
        return Cell(statistics.median(values), min(values), max(values), count, expected)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    reach = float(stdtrit(count - 1, (1 + _LEVEL) / 2)) * math.sqrt(variance / count)
    return Cell(mean, mean - reach, mean + reach, count, expected)
