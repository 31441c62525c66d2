"""Which job of a pass is at work."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from schemas.specs import JobSpec


@dataclass
class AtWork:
    """The job at work: what goes wrong meanwhile is its failure.

    Reports don't tell, since a job may have several or none.
    """

    spec: JobSpec | None = None
    """Before the first job begins, the one that is due; none once all ended."""

    def through(self, selected: Iterable[JobSpec]) -> Iterator[JobSpec]:
        """The jobs in their order; each is at work until the next one is asked for."""
        for spec in selected:
            self.spec = spec
            yield spec
        self.spec = None
