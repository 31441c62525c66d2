"""The specs of `train` and `evaluate`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name, Share, Spec
from schemas.specs.preprocessing import Preprocessing


class Augmentation(Spec):
    """Random changes of training images."""

    rotate_degrees: float = Field(default=10, ge=0, le=180)
    """Largest rotation to either side."""
    translate: Share = 0.05
    """Largest shift as a share of the side."""
    scale: Share = 0.1
    """Largest change of scale."""
    shear_degrees: float = Field(default=0, ge=0, le=45)
    """Largest shear to either side."""
    brightness: Share = 0.1
    """Largest change of brightness."""
    contrast: Share = 0.1
    """Largest change of contrast."""
    flip: bool = False
    """Flip left to right; off because laterality may carry meaning."""


class Optimizer(Spec):
    """How weights are fitted."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum, for SGD."""
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    """The learning rate after warm-up; step divides by 10 at half and three quarters."""
    warmup_epochs: float = Field(default=1, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient."""


class TrainSpec(JobSpec):
    """Train a timm classifier with Ray Train and write a model bundle."""

    kind: Literal["train"] = "train"
    dataset: Name
    """The data set to train on."""
    split: Name
    """Name of the split to train by."""
    fold: int | None = Field(default=None, ge=0)
    """Fold of the split that is held out: neither trained nor validated on. The other folds are
    trained on, the split's own test part never."""
    inner_fold: int | None = Field(default=None, ge=0)
    """Fold to validate on; the one after `fold` when not given."""
    model: Name
    """Name of the bundle to make."""
    architecture: str = "resnet18"
    """A timm architecture."""
    start: str = "none"
    """Start weights: none, pretrained, or the path of a safetensors checkpoint."""
    classes: tuple[str, ...] = ()
    """Labels in the order of the scores; all labels of the training part, sorted, when empty."""
    positive: str | None = None
    """Class whose score the operating point cuts, for two classes; the last when not given."""
    preprocess: Preprocessing = Preprocessing()
    augment: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=1)
    """Images of one step over all workers together."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of forward passes; bf16 is about twice as fast where the processor has it."""
    label_smoothing: Share = 0.0
    """Share of the target that is spread over all classes."""
    threshold_rule: Literal["youden", "f1"] = "youden"
    """How the operating point is chosen on the validation part."""
    class_weights: bool = False
    """Weight the loss by the inverse frequency of the classes."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better validation AUC before training stops."""
    use_prepared: bool = True
    """Read pixels that `prepare` made by the same recipe, for the images that have some."""
    world_size: int = Field(default=2, ge=1)
    """Workers that train together; part of the result, since it changes the order of sums."""
    seed: int = Field(default=0, ge=0)
    """Seed of start weights, order and augmentation."""
    nightly: bool = False
    """Mark the bundle for nightly scoring when it is made; one that is there is left as it is."""
    allow_leaks: bool = False
    """Train although the split leaks; the model card says so."""

    @model_validator(mode="after")
    def _nest(self) -> Self:
        if self.inner_fold is not None and self.fold is None:
            raise ValueError("inner_fold needs fold, the one that is held out")
        if self.inner_fold is not None and self.inner_fold == self.fold:
            raise ValueError("inner_fold must be another fold than the one held out")
        return self


class EvaluateSpec(JobSpec):
    """Compare predictions with labels, part by part."""

    kind: Literal["evaluate"] = "evaluate"
    dataset: Name
    """The data set to evaluate on."""
    split: Name
    """Name of the split whose parts are reported."""
    model: str
    """A bundle of the lake: name, or name@version."""
    parts: tuple[Literal["train", "val", "test"], ...] = ("val", "test")
    """Parts to report."""
    fold: int | None = Field(default=None, ge=0)
    """Fold that the model's training held out; it alone is reported, as part test."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples over patients for the 95 % intervals; 0 for none."""
    seed: int = Field(default=0, ge=0)
    """Seed of the resampling."""
