"""What determines the training of a detector, as plain values; all of it enters the fingerprint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from workers.detection.augmentation import BoxAugmentation
from workers.training.config import Optimisation, Precision, Stage, StartName


@dataclass(frozen=True)
class DetectorConfig:
    """One training of one detector."""

    family: str
    architecture: str
    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    """The pixel recipe as JSON values; its ``size`` and ``channels`` shape the input."""
    stages: tuple[Stage, ...]
    """At least one, in their order; their depth is that of the backbone: 0 freezes all of it."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """The family's options of its network; see its `build`."""
    batch: int = 16
    """Images per step over all workers."""
    seed: int = 0
    start: StartName = "none"
    precision: Precision = "fp32"
    """bf16 runs the network's matrix work in bfloat16; losses, the assignment of boxes, weights
    and their average stay in float32, as 1 - 1e-4 is 1 in less."""
    loss: Mapping[str, Any] = field(default_factory=dict)
    """The family's options; see its loss."""
    final_epochs: int = 0
    """Last epochs, of those planned, without mosaic and mixup and with ``final_loss``."""
    final_loss: Mapping[str, Any] = field(default_factory=dict)
    """Options that replace those of ``loss`` in the final epochs."""
    ema_decay: float = 0.0
    ema_ramp: int = 2000
    """See `workers.training.loop.LoopSettings`."""
    stop_after: int = 0
    """Epochs without a better AP50 on the validation part after which a stage ends; 0 never."""
    one_class: bool = False
    """Whether all categories were merged into one."""
    limit: int = 100
    """Detections of an image at most."""
    least_score: float = 0.01
    """Detections below are left out."""
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: BoxAugmentation = field(default_factory=BoxAugmentation)

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def in_chans(self) -> int:
        """Channels of the network's input."""
        return int(self.recipe["channels"])

    def is_final(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, is one of the final ones."""
        return epoch >= self.epochs - self.final_epochs

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found = asdict(self)
        for name in ("recipe", "network", "loss", "final_loss"):
            found[name] = dict(found[name])
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON values.

        Raises:
            TypeError: for a name that is none of the fields.
        """
        known = dict(values)
        known["classes"] = tuple(known["classes"])
        known["stages"] = tuple(Stage(**one) for one in known["stages"])
        known["optimisation"] = Optimisation(**known.get("optimisation", {}))
        augmentation = dict(known.get("augmentation", {}))
        for name in ("window", "zoom"):
            if name in augmentation:
                augmentation[name] = tuple(augmentation[name])
        known["augmentation"] = BoxAugmentation(**augmentation)
        return cls(**known)
