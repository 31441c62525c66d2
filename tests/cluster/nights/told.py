"""A notifier that keeps what it is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.specs.night import Event


@dataclass
class Told:
    """Remembers what was told."""

    events: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def tell(self, event: Event, facts: Mapping[str, str]) -> None:
        self.events.append((event, dict(facts)))

    @property
    def names(self) -> list[str]:
        return [event for event, _ in self.events]
