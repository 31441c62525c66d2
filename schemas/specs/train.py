"""The spec of `train`: fit a classifier and write its bundle."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name, Share, Spec
from schemas.specs.modelname import ModelName
from schemas.specs.preprocessing import Preprocessing

Depth = Literal["all"] | Annotated[int, Field(ge=0, le=5)]
"""How many of a network's blocks are trained, counted from the head: 0 trains the head alone."""


class RandAugment(Spec):
    """RandAugment as torchvision does it (Cubuk et al. 2020)."""

    operations: int = Field(default=2, ge=1, le=14)
    """Operations applied to an image, one after the other."""
    magnitude: int = Field(default=9, ge=0, le=30)
    """Strength of the operations, out of 31 steps."""


class Augmentation(Spec):
    """Random changes of training images."""

    rotate_degrees: float = Field(default=10, ge=0, le=180)
    """Largest rotation to either side."""
    translate: Share = 0.05
    """Largest shift as a share of the side."""
    scale: float = Field(default=0.1, ge=0, lt=1)
    """Largest change of scale: 0.1 draws a factor between 0.9 and 1.1."""
    aspect: float = Field(default=0, ge=0, lt=1)
    """Largest change of width against height: 0.1 draws a factor between 1 / 1.1 and 1.1."""
    blur_px: float = Field(default=0, ge=0, le=10)
    """Largest standard deviation of a blur, in pixels of the prepared image; half of the images get
    one."""
    shear_degrees: float = Field(default=0, ge=0, le=45)
    """Largest shear to either side."""
    brightness: Share = 0.1
    """Largest change of brightness."""
    contrast: Share = 0.1
    """Largest change of contrast."""
    flip: bool = False
    """Flip left to right; off because laterality may carry meaning."""
    mixup: float = Field(default=0, ge=0)
    """Alpha of mixup's beta distribution: pairs of images and their targets are blended; 0 for
    none."""
    randaugment: RandAugment | None = None
    """Random operations out of torchvision's fourteen; none when not given."""


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

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        if self.name != "sgd" and "momentum" in self.model_fields_set:
            raise ValueError(f"momentum is of sgd: leave it out for {self.name}")
        return self


_OF_LOSS = {"gamma": "focal", "costs": "cost", "cross_entropy_share": "cost"}
"""Which loss a field of `Loss` is of."""


class Loss(Spec):
    """What training minimises."""

    name: Literal["cross_entropy", "binary", "focal", "cost"] = "cross_entropy"
    """Cross-entropy; the binary cross-entropy of each class's probability against one-hot targets;
    focal loss; or the expected cost of a decision by `costs`."""
    gamma: float = Field(default=2.0, ge=0)
    """Of the focal loss: how strongly easy images are weighted down."""
    costs: tuple[tuple[float, ...], ...] = ()
    """Of the cost loss: a row for each actual class, a column for each predicted one."""
    cross_entropy_share: Share = 0.0
    """Of the cost loss: cross-entropy times this share is added, which keeps its gradient alive."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        for field, loss in _OF_LOSS.items():
            if self.name != loss and getattr(self, field) and field in self.model_fields_set:
                raise ValueError(f"{field} is of the loss {loss}: leave it out for {self.name}")
        if self.name == "cost" and not self.costs:
            raise ValueError("loss cost needs costs, a row for each actual class")
        return self


class Stage(Spec):
    """A part of the training with its own depth and rate; the schedule starts anew in each."""

    epochs: int = Field(ge=1)
    """Epochs of the stage."""
    unfrozen: Depth = "all"
    """Blocks trained in it."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""


class Svm(Spec):
    """A support vector machine on standardised features, one class against the rest."""

    kernel: Literal["rbf", "linear"] = "rbf"
    """Kernel. The rbf kernel takes 20,000 training images at most; linear any number."""
    c: float = Field(default=1.0, gt=0)
    """Inverse strength of the regularisation."""
    gamma: Literal["scale"] | Annotated[float, Field(gt=0)] = "scale"
    """Of the rbf kernel; `scale` is 1 / (features x variance)."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        if self.kernel == "linear" and "gamma" in self.model_fields_set:
            raise ValueError("gamma is of the kernel rbf: leave it out for linear")
        return self


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
    model: ModelName
    """Name of the bundle to make."""
    architecture: str = "resnet18"
    """A timm architecture."""
    start: str = "none"
    """Start weights: none; pretrained, which timm fetches; `bundle:NAME` or `bundle:NAME@VERSION`,
    a bundle of the lake; or the path of a safetensors checkpoint."""
    head: Literal["softmax", "corn", "svm"] = "softmax"
    """What makes probabilities: softmax; CORN, for classes in an order (mildest first); or a
    support vector machine on the features of the bundle that `start` names, which `embed` wrote."""
    svm: Svm = Svm()
    """Of the head svm."""
    sites: tuple[str, ...] = ()
    """Train and validate on images of these sites only; on all when empty."""
    classes: tuple[str, ...] = ()
    """Labels in the order of the scores; all labels of the training part, sorted, when empty."""
    positive: str | None = None
    """Class whose score the operating point cuts, for two classes; the last when not given."""
    preprocess: Preprocessing = Preprocessing()
    augment: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    unfrozen: Depth = "all"
    """Blocks that are trained, counted from the head (five in most networks); 0 trains the head
    alone. Frozen blocks keep the statistics of their batch norms."""
    stages: tuple[Stage, ...] = ()
    """Training by stages, in place of `epochs`, `unfrozen` and the learning rate."""
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=1)
    """Images of one step over all workers together."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of forward passes; bf16 is about twice as fast where the processor has it."""
    label_smoothing: Share = 0.0
    """Share of the target that is spread over all classes."""
    threshold_rule: Literal["youden", "f1"] = "youden"
    """How the operating point is chosen on the validation part."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """Against unequal classes: weight the loss by their inverse frequency, or draw images so that
    all classes come equally often."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Keep a moving average of the weights with this decay a step, and validate and keep that."""
    calibrate: bool = True
    """Fit a temperature on the validation part, so that probabilities mean what they say."""
    backends: Literal["measured", "eager"] = "measured"
    """Measure which backend scores fastest, or leave it at eager float32, which saves half a minute
    where a bundle is not made to last."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better validation AUC before the stage ends, and training with the last."""
    use_prepared: bool = True
    """Read pixels that `prepare` made by the same recipe, for the images that have some."""
    world_size: int = Field(default=2, ge=1)
    """Workers that train together; part of the result, since it changes the order of sums."""
    min_world_size: int | None = Field(default=None, ge=1)
    """Begin and go on with this many workers at least, where the cluster has no more or loses some;
    always `world_size` when not given. The model card tells the workers of each epoch."""
    seed: int = Field(default=0, ge=0)
    """Seed of start weights, order and augmentation."""
    nightly: bool = False
    """Mark the bundle for nightly scoring when it is made; one that is there is left as it is."""
    allow_leaks: bool = False
    """Train although the split leaks; the model card says so."""

    _outside_identity: ClassVar[frozenset[str]] = JobSpec._outside_identity | {
        "use_prepared",
        "backends",
        "nightly",
    }

    @model_validator(mode="after")
    def _nest(self) -> Self:
        if self.inner_fold is not None and self.fold is None:
            raise ValueError("inner_fold needs fold, the one that is held out")
        if self.inner_fold is not None and self.inner_fold == self.fold:
            raise ValueError("inner_fold must be another fold than the one held out")
        return self

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.head == "svm":
            _check_svm(self)
        elif "svm" in self.model_fields_set:
            raise ValueError("svm is of the head svm: set `head: svm`, or leave it out")
        if self.stages and self.model_fields_set & {"epochs", "unfrozen"}:
            raise ValueError("stages take the place of epochs and unfrozen: leave these out")
        if self.stages and "learning_rate" in self.optimizer.model_fields_set:
            raise ValueError("each stage has a learning_rate of its own: leave optimizer's out")
        shortest = min((one.epochs for one in self.stages), default=self.epochs)
        if self.optimizer.warmup_epochs > shortest:
            raise ValueError(
                f"optimizer.warmup_epochs of {self.optimizer.warmup_epochs:g} are more than the "
                f"{shortest} epochs there are"
            )
        if self.head == "corn" and self.loss.name != "cross_entropy":
            raise ValueError("head corn has a loss of its own: leave loss out")
        if self.min_world_size is not None and self.min_world_size > self.world_size:
            raise ValueError("min_world_size must be world_size at most")
        return self

    @model_validator(mode="after")
    def _classes_that_fit(self) -> Self:
        ordered = "head corn" if self.head == "corn" else "loss cost"
        if not self.classes and (self.head == "corn" or self.loss.name == "cost"):
            raise ValueError(f"{ordered} needs classes, in their order: mildest first for corn")
        count = len(self.classes)
        if len(set(self.classes)) < count:
            raise ValueError("classes name one class twice")
        if self.loss.costs and [len(row) for row in self.loss.costs] != [count] * count:
            raise ValueError(f"loss.costs must have {count} rows and columns, one for each class")
        if self.positive is not None and self.classes:
            if count > 2:
                raise ValueError(
                    f"positive is for two classes, whose scores a threshold parts; here are {count}"
                )
            if self.positive not in self.classes:
                raise ValueError(f"positive is none of the classes {', '.join(self.classes)}")
        return self


_OF_NETWORKS = (
    "augment", "optimizer", "loss", "unfrozen", "stages", "epochs", "batch_size", "precision",
    "label_smoothing", "ema_decay", "calibrate", "patience", "seed", "min_world_size",
)  # fmt: skip
"""Fields that a support vector machine on a network's features has no use for."""


def _check_svm(spec: TrainSpec) -> None:
    if not spec.start.startswith("bundle:"):
        raise ValueError("head svm needs `start: bundle:NAME`, whose features it takes")
    useless = [name for name in _OF_NETWORKS if name in spec.model_fields_set]
    if spec.world_size != 1 and "world_size" in spec.model_fields_set:
        useless.append("world_size")
    if useless:
        raise ValueError(f"head svm has no use for {', '.join(useless)}: leave out")
