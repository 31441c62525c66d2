"""What determines a pre-training, as plain values; all of it enters the fingerprint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from workers.models.simsiam.views import Views
from workers.training.config import Optimisation, Precision, Stage, StartName


@dataclass(frozen=True)
class ProbeSettings:
    """How features are judged on the way, by images whose label is known."""

    classes: tuple[str, ...]
    every: int = 5
    """Epochs from one probe to the next; the last epoch always has one."""
    neighbours: int = 20


@dataclass(frozen=True)
class SimSiamConfig:
    """One pre-training of one backbone."""

    architecture: str
    recipe: Mapping[str, Any]
    """The pixel recipe as JSON values; its ``size`` and ``channels`` shape the input."""
    stages: tuple[Stage, ...]
    """One, which trains everything."""
    batch: int = 64
    """Images per step over all workers."""
    seed: int = 0
    start: StartName = "none"
    precision: Precision = "fp32"
    views: Views = field(default_factory=Views)
    probe: ProbeSettings | None = None
    """None where no image has a label, or no probe is wanted."""
    optimisation: Optimisation = field(default_factory=Optimisation)

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def in_chans(self) -> int:
        """Channels of the network's input."""
        return int(self.recipe["channels"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"recipe": dict(self.recipe)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON values.

        Raises:
            TypeError: for a name that is none of the fields.
        """
        known = dict(values)
        known["stages"] = tuple(Stage(**one) for one in known["stages"])
        known["views"] = Views(**known.get("views", {}))
        known["optimisation"] = Optimisation(**known.get("optimisation", {}))
        probe = known.get("probe")
        if probe is not None:
            known["probe"] = ProbeSettings(**{**probe, "classes": tuple(probe["classes"])})
        return cls(**known)
