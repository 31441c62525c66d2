"""What determines a training, as plain values; everything here enters the fingerprint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

OptimiserName = Literal["adamw", "adam", "sgd"]
ScheduleName = Literal["cosine", "step", "constant"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Optimisation:
    """How weights move."""

    optimiser: OptimiserName = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    """Of SGD (Nesterov); Adam's betas are 0.9 and 0.999."""
    schedule: ScheduleName = "cosine"
    warm_up_epochs: float = 1.0
    final_share: float = 0.01
    """Of the learning rate, where the cosine ends."""
    step_epochs: tuple[float, ...] = ()
    """Epochs after which a step schedule divides the rate by ten."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0 does not clip."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn per image."""

    rotate_deg: float = 0.0
    translate: float = 0.0
    """Of the side, each way."""
    scale: float = 0.0
    """The factor lies within 1 - scale and 1 + scale."""
    shear_deg: float = 0.0
    flip: bool = False
    """Mirror left and right with probability a half; wrong where laterality is a label."""
    brightness: float = 0.0
    """Added, of the full range, each way."""
    contrast: float = 0.0
    """The factor about the image's mean lies within 1 - contrast and 1 + contrast."""


@dataclass(frozen=True)
class TrainConfig:
    """One training of one network."""

    architecture: str
    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    """The pixel recipe as JSON values; its ``size`` and ``channels`` shape the input."""
    epochs: int
    batch: int = 32
    """Images per step over all workers."""
    seed: int = 0
    start: Literal["none", "timm", "checkpoint"] = "none"
    precision: Precision = "fp32"
    """bf16 runs matrix work in bfloat16 and keeps weights and loss in float32."""
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float = 0.0
    stop_after: int = 0
    """Epochs without a better validation AUC after which training ends; 0 never stops early."""
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def in_chans(self) -> int:
        """Channels of the network's input."""
        return int(self.recipe["channels"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found = asdict(self)
        found["recipe"] = dict(self.recipe)
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON values.

        Raises:
            TypeError: for a name that is none of the fields.
        """
        known = dict(values)
        known["classes"] = tuple(known["classes"])
        optimisation = dict(known.pop("optimisation", {}))
        augmentation = known.pop("augmentation", {})
        if "step_epochs" in optimisation:
            optimisation["step_epochs"] = tuple(optimisation["step_epochs"])
        names = {one.name for one in fields(cls)}
        unknown = sorted(set(known) - names)
        if unknown:
            raise TypeError(f"no such training setting: {', '.join(unknown)}")
        return cls(
            optimisation=Optimisation(**optimisation),
            augmentation=Augmentation(**augmentation),
            **known,
        )
