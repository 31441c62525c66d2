"""What determines a training, as plain values; everything here enters the fingerprint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

OptimiserName = Literal["adamw", "adam", "sgd"]
ScheduleName = Literal["cosine", "step", "constant"]
Precision = Literal["fp32", "bf16"]
LossName = Literal["cross_entropy", "binary", "focal", "cost"]
TrainedHead = Literal["softmax", "corn"]
"""Heads a network is trained for; a support vector machine is fitted to a network later."""
StartName = Literal["none", "timm", "checkpoint"]
"""Where first weights come from: random, timm's pretrained ones, or a safetensors file."""

EVERY_BLOCK = -1
"""The depth of a stage that trains the whole network."""


@dataclass(frozen=True)
class Optimisation:
    """How weights move, in every stage; the rate itself is the stage's."""

    optimiser: OptimiserName = "adamw"
    weight_decay: float = 0.01
    momentum: float = 0.9
    """Of SGD (Nesterov); Adam's betas are 0.9 and 0.999."""
    plain_momentum: bool = False
    """Of SGD: momentum as Polyak has it, in place of Nesterov's."""
    schedule: ScheduleName = "cosine"
    """Of a stage, after its warm-up; step divides the rate by ten at half and three quarters."""
    warm_up_epochs: float = 1.0
    final_share: float = 0.01
    """Of the learning rate, where the cosine ends."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0 does not clip."""
    constant_part: str | None = None
    """Name of the module of the network whose rate stays at the stage's peak throughout."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn per image."""

    rotate_deg: float = 0.0
    translate: float = 0.0
    """Of the side, each way."""
    scale: float = 0.0
    """The factor lies within 1 - scale and 1 + scale."""
    aspect: float = 0.0
    """The factor of width against height lies within 1 / (1 + aspect) and 1 + aspect."""
    blur_px: float = 0.0
    """Largest standard deviation of a Gaussian blur; half of the images get one."""
    shear_deg: float = 0.0
    flip: bool = False
    """Mirror left and right with probability a half; wrong where laterality is a label."""
    brightness: float = 0.0
    """Added, of the full range, each way."""
    contrast: float = 0.0
    """The factor about the image's mean lies within 1 - contrast and 1 + contrast."""
    mixup: float = 0.0
    """Alpha of the beta distribution; 0 blends nothing."""
    randaugment: tuple[int, int] | None = None
    """Operations and magnitude of torchvision's RandAugment."""


@dataclass(frozen=True)
class LossSettings:
    """What training minimises; see `schemas.specs.train.Loss`."""

    name: LossName = "cross_entropy"
    gamma: float = 2.0
    """Of the focal loss."""
    costs: tuple[tuple[float, ...], ...] = ()
    """Of the cost loss, by actual class (rows) and predicted class (columns)."""
    cross_entropy_share: float = 0.0
    """Of the cost loss: the cross-entropy times this share is added to the expected cost."""


@dataclass(frozen=True)
class Stage:
    """A part of a training with its own depth and rate."""

    epochs: int
    unfrozen: int = EVERY_BLOCK
    """Blocks trained, counted from the head; 0 trains the head alone."""
    learning_rate: float = 1e-3
    """Peak of the stage."""


@dataclass(frozen=True)
class TrainConfig:
    """One training of one network."""

    architecture: str
    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    """The pixel recipe as JSON values; its ``size`` and ``channels`` shape the input."""
    stages: tuple[Stage, ...]
    """At least one, in their order."""
    batch: int = 32
    """Images per step over all workers: each takes an equal share, rounded down, and no more than
    the worker with the fewest images has."""
    seed: int = 0
    start: StartName = "none"
    new_head: bool = False
    """Leave the classifier at its random start even where that of the checkpoint would fit, as a
    task with other classes needs it."""
    precision: Precision = "fp32"
    """bf16 runs matrix work in bfloat16 and keeps weights and loss in float32; with fp32 a GPU's
    convolutions round what they multiply to TensorFloat-32, as PyTorch has it. Validation is in
    full float32 either way."""
    head: TrainedHead = "softmax"
    loss: LossSettings = field(default_factory=LossSettings)
    balance: Literal["none", "weights", "sampler"] = "none"
    ema_decay: float = 0.0
    """Of the moving average of the weights that is validated and kept; 0 keeps none."""
    calibrate: bool = True
    """Fit a temperature on the validation part."""
    label_smoothing: float = 0.0
    stop_after: int = 0
    """Epochs without a better validation AUC, or a smaller loss at the same one, after which a
    stage ends; 0 never stops early."""
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: Augmentation = field(default_factory=Augmentation)

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
        optimisation = known.pop("optimisation", {})
        augmentation = known.pop("augmentation", {})
        loss = dict(known.pop("loss", {}))
        loss["costs"] = tuple(tuple(row) for row in loss.get("costs", ()))
        if augmentation.get("randaugment"):
            augmentation = {**augmentation, "randaugment": tuple(augmentation["randaugment"])}
        stages = tuple(Stage(**one) for one in known.pop("stages"))
        names = {one.name for one in fields(cls)}
        unknown = sorted(set(known) - names)
        if unknown:
            raise TypeError(f"no such training setting: {', '.join(unknown)}")
        return cls(
            optimisation=Optimisation(**optimisation),
            augmentation=Augmentation(**augmentation),
            loss=LossSettings(**loss),
            stages=stages,
            **known,
        )
