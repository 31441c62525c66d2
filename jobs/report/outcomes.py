"""An outcome of a study's trial, and the figures that were found of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.studies import Outcome


@dataclass(frozen=True)
class Figure:
    """One figure of one outcome."""

    value: float
    low: float | None
    """Lower end of the 95 % interval over patients."""
    high: float | None


Key = tuple[str, str, str]
"""Part, subgroup, and metric or metric/category."""


@dataclass(frozen=True)
class Measured:
    """An outcome of a trial, and its figures."""

    outcome: Outcome
    figures: Mapping[Key, Figure] = field(default_factory=dict)

    def figure(self, part: str, subgroup: str, metric: str) -> Figure | None:
        """A figure by its name: ``auc``, or ``recall/PNEUMONIA``.

        Of a metric that has figures of one class only (sensitivity) the metric's name is enough.
        """
        found = self.figures.get((part, subgroup, metric))
        if found is None and "/" not in metric:
            among = [
                one
                for (of_part, of_group, name), one in self.figures.items()
                if (of_part, of_group, name.partition("/")[0]) == (part, subgroup, metric)
                and "|" not in name
            ]
            found = among[0] if len(among) == 1 else None
        return found
