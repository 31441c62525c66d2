"""The spec of `train_detector`: fit a detector of boxes and write its bundle."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name, Share, Spec
from schemas.specs.modelname import ModelName
from schemas.specs.preprocessing import Preprocessing
from schemas.specs.train import Optimizer, Stage

Factor = Annotated[float, Field(gt=0, le=4)]

_STEPS = 6
"""Stages of `stepwise` where none are given: 0 to 4 blocks of the backbone, then all of it."""


class BoxAugmentation(Spec):
    """Random changes of training images; boxes move along."""

    flip: bool = True
    """Mirror left to right with a chance of a half, images without boxes too."""
    window: tuple[Factor, Factor] = (0.6, 1.3)
    """Side of the window that is cut out, as a share of the image's, from and to; above 1 it
    reaches beyond the image."""
    tone: Share = 0.4
    """Largest change of brightness, contrast and saturation."""
    mosaic: Share | None = None
    """Chance that four images are put together; 0.5 for yolox and 0 for centernet when not given.
    Not in the last epochs, see `final_epochs`."""
    zoom: tuple[Factor, Factor] = (0.5, 1.5)
    """Zoom of the images of a mosaic, from and to."""
    mixup: Share = 0
    """Chance that an image is blended half and half with another; not in the last epochs."""
    least_share: Share = 0.25
    """A box of which less is left in the picture is dropped."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("window", "zoom"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must go from the smaller to the larger")
        return self


_OF_FAMILY = {
    "radius": "centernet",
    "min_overlap": "centernet",
    "size_weight": "centernet",
    "offset_weight": "centernet",
    "l1": "yolox",
}
"""Which family a field of `DetectionLoss` is of."""


class DetectionLoss(Spec):
    """What training minimises; every field is of one family."""

    radius: Literal["corrected", "original"] = "corrected"
    """CenterNet: how wide the bump about a centre is; `original` as the first implementation has
    it, which divides the roots of its equations wrongly."""
    min_overlap: float = Field(default=0.7, gt=0, lt=1)
    """CenterNet: intersection over union that a box from the rim of a bump has with the marked
    one."""
    size_weight: float = Field(default=0.1, ge=0)
    """CenterNet: weight of the sizes."""
    offset_weight: float = Field(default=1.0, ge=0)
    """CenterNet: weight of the offsets."""
    l1: Literal["final", "always", "never"] = "final"
    """YOLOX: when the absolute differences of boxes count too; `final` is the last epochs."""


class DetectorSpec(JobSpec):
    """Train a detector on boxes and write a model bundle."""

    kind: Literal["train_detector"] = "train_detector"
    dataset: Name
    """The data set to train on."""
    split: Name
    """Name of the split to train by."""
    fold: int | None = Field(default=None, ge=0)
    """Fold of the split that is held out: neither trained nor validated on."""
    inner_fold: int | None = Field(default=None, ge=0)
    """Fold to validate on; the one after `fold` when not given."""
    sites: tuple[str, ...] = ()
    """Train and validate on images of these sites only; on all when empty."""
    annotations: str
    """The source of the boxes, as it stands in the table `annotations`."""
    ignored: str | None = None
    """A source of more regions, none of whose boxes is learned: what lies in them counts neither
    for nor against a detection. Those that `review` found likely to lack boxes, say."""
    images: Literal["annotated", "all"] = "annotated"
    """Images that the source has looked at, with boxes or without; or all of the split, where those
    that the source does not name count as images without a box."""
    model: ModelName
    """Name of the bundle to make."""
    family: Literal["centernet", "yolox"] = "centernet"
    """The family of networks."""
    architecture: str | None = None
    """A timm backbone for centernet (resnet18 when not given); yolox-nano (when not given),
    yolox-tiny or yolox-s."""
    neck: Literal["lateral", "plain"] = "lateral"
    """CenterNet: whether its deconvolutions also get the backbone's earlier features of each
    resolution, which small inputs need, or its last ones alone, as in the paper."""
    classes: tuple[str, ...] = ()
    """Categories to detect, in their order; all of the training part, sorted, when empty. Boxes of
    other categories are ignored regions."""
    one_class: bool = False
    """Merge all categories into one, `lesion`."""
    start: str = "none"
    """Start weights: none; pretrained, which timm fetches; `bundle:NAME` or `bundle:NAME@VERSION`,
    a bundle of the lake: a detector of the same architecture, or one whose network is the backbone;
    or the path of a safetensors file."""
    backbone: Literal["flex", "fix", "stepwise"] = "flex"
    """Train all of the backbone; none of it; or first none, then more of it from stage to stage."""
    stages: tuple[Stage, ...] = ()
    """Of `stepwise`, in place of `epochs` and the learning rate: `unfrozen` counts blocks of the
    backbone, and 0 trains neck and heads alone. When not given, the epochs are shared out over 0 to
    4 blocks and all."""
    preprocess: Preprocessing = Preprocessing(size=512)
    augment: BoxAugmentation = BoxAugmentation()
    optimizer: Optimizer = Optimizer()
    loss: DetectionLoss = DetectionLoss()
    epochs: int = Field(default=50, ge=1)
    final_epochs: int | None = Field(default=None, ge=0)
    """Last epochs, of those planned, without mosaic and mixup and, for yolox, with its L1 loss; a
    twentieth of the epochs for yolox and none for centernet when not given. A training that stops
    early has none."""
    batch_size: int = Field(default=16, ge=2)
    """Images of one step over all workers together."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the network's passes in training. Losses, the assignment of boxes, weights and
    validation are in fp32 either way."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Keep a moving average of the weights with this decay a step, and validate and keep that."""
    ema_ramp_steps: int = Field(default=2000, ge=0)
    """Steps in which the decay comes to 63 % of its value, so that the start is forgotten."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better AP50 on the validation part before a stage ends."""
    limit: int = Field(default=100, ge=1, le=1000)
    """Detections of an image at most."""
    least_score: Share = 0.01
    """Confidence below which a detection is not told at all."""
    backends: Literal["measured", "eager"] = "measured"
    """Measure which backend scores fastest, or leave it at eager float32."""
    use_prepared: bool = True
    """Read pixels that `prepare` made by the same recipe, for the images that have some."""
    world_size: int = Field(default=2, ge=1)
    """Workers that train together; part of the result."""
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

    @property
    def resolved_architecture(self) -> str:
        """The architecture, or the family's usual one."""
        usual = {"centernet": "resnet18", "yolox": "yolox-nano"}
        return self.architecture or usual[self.family]

    @property
    def resolved_stages(self) -> tuple[Stage, ...]:
        """The stages of the training; one, unless the backbone is freed stepwise."""
        rate = self.optimizer.learning_rate
        if self.backbone != "stepwise":
            unfrozen: Literal["all"] | int = "all" if self.backbone == "flex" else 0
            return (Stage(epochs=self.epochs, unfrozen=unfrozen, learning_rate=rate),)
        if self.stages:
            return self.stages
        each, more = divmod(self.epochs, _STEPS)
        return tuple(
            Stage(
                epochs=each + (step < more),
                unfrozen="all" if step == _STEPS - 1 else step,
                learning_rate=rate,
            )
            for step in range(_STEPS)
        )

    @property
    def resolved_final_epochs(self) -> int:
        """Last epochs without what puts images together."""
        if self.final_epochs is not None:
            return self.final_epochs
        planned = sum(stage.epochs for stage in self.resolved_stages)
        return planned // 20 if self.family == "yolox" else 0

    @model_validator(mode="after")
    def _nest(self) -> Self:
        if self.inner_fold is not None and self.fold is None:
            raise ValueError("inner_fold needs fold, the one that is held out")
        if self.inner_fold is not None and self.inner_fold == self.fold:
            raise ValueError("inner_fold must be another fold than the one held out")
        return self

    @model_validator(mode="after")
    def _of_the_family(self) -> Self:
        stated = self.loss.model_fields_set
        foreign = [name for name in stated if _OF_FAMILY[name] != self.family]
        if foreign:
            raise ValueError(f"loss.{foreign[0]} is of {_OF_FAMILY[foreign[0]]}: leave it out")
        if self.family == "yolox":
            if "neck" in self.model_fields_set:
                raise ValueError("neck is of centernet: leave it out")
            if self.architecture and not self.architecture.startswith("yolox-"):
                raise ValueError(
                    "architecture of yolox is yolox-nano, yolox-tiny or yolox-s; backbones of timm "
                    "are for centernet"
                )
            if self.start == "pretrained":
                raise ValueError("start: there are no pretrained weights for yolox")
        if self.preprocess.size % 32:
            raise ValueError("preprocess.size must be a multiple of 32, the detectors' stride")
        if self.preprocess.decoder != "cpu":
            raise ValueError("preprocess.decoder must be cpu for a detector")
        return self

    @model_validator(mode="after")
    def _by_stages(self) -> Self:
        if self.stages and self.backbone != "stepwise":
            raise ValueError("stages are of `backbone: stepwise`")
        if self.stages and "epochs" in self.model_fields_set:
            raise ValueError("stages take the place of epochs: leave these out")
        if self.stages and "learning_rate" in self.optimizer.model_fields_set:
            raise ValueError("each stage has a learning_rate of its own: leave optimizer's out")
        if self.backbone == "stepwise" and not self.stages and self.epochs < _STEPS:
            raise ValueError(f"stepwise without stages needs {_STEPS} epochs at least")
        shortest = min(stage.epochs for stage in self.resolved_stages)
        if self.optimizer.warmup_epochs > shortest:
            raise ValueError(
                f"optimizer.warmup_epochs of {self.optimizer.warmup_epochs:g} are more than the "
                f"{shortest} epochs of a stage"
            )
        if "ema_ramp_steps" in self.model_fields_set and self.ema_decay is None:
            raise ValueError("ema_ramp_steps is of ema_decay: set that too, or leave it out")
        return self

    @model_validator(mode="after")
    def _classes_that_fit(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes name one class twice")
        if self.ignored is not None and self.ignored == self.annotations:
            raise ValueError("ignored must be another source than annotations")
        return self
