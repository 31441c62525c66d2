"""The spec of `pretrain`: learn a backbone from images without labels, and write its bundle."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name, Share, Spec
from schemas.specs.modelname import ModelName
from schemas.specs.preprocessing import Preprocessing


class ViewChanges(Spec):
    """How far two views of an image may differ."""

    smallest_crop: float = Field(default=0.2, gt=0, le=1)
    """Smallest part of the image a view may show, as a share of its area."""
    tone: Share = 0.4
    """Largest change of brightness and of contrast, as a factor: 0.4 draws from 0.6 to 1.4."""
    tone_chance: Share = 0.8
    """Chance that brightness and contrast change."""
    blur_chance: Share = 0.5
    """Chance that a view is blurred, by up to 2 pixels in an image of 224."""
    flip: bool = True
    """Mirror left to right with a chance of a half; the backbone is then made blind to
    laterality."""


class Probe(Spec):
    """Judging the features on the way, by the classes of an image's nearest neighbours."""

    every: int = Field(default=5, ge=1)
    """Epochs from one probe to the next; the last epoch always has one."""
    neighbours: int = Field(default=20, ge=1)
    """Training images, the nearest to each validation image, whose labels vote."""


class PretrainSpec(JobSpec):
    """Train a backbone without labels (SimSiam) and write a bundle for trainings to start from."""

    kind: Literal["pretrain"] = "pretrain"
    dataset: Name
    """The data set to learn from."""
    split: Name
    """Name of the split: its train part is learned from, its val part watched, and its test part
    left alone."""
    fold: int | None = Field(default=None, ge=0)
    """Fold of the split that is held out: neither learned from nor watched."""
    inner_fold: int | None = Field(default=None, ge=0)
    """Fold to watch; the one after `fold` when not given."""
    sites: tuple[str, ...] = ()
    """Take images of these sites only; of all when empty."""
    images: Literal["all", "labelled"] = "all"
    """All images of the split; or those only that have a label, where an archive keeps other
    pictures beside them, such as masks."""
    model: ModelName
    """Name of the bundle to make."""
    architecture: str = "resnet18"
    """A timm architecture."""
    start: str = "none"
    """Start weights: none; pretrained, which timm fetches; `bundle:NAME` or `bundle:NAME@VERSION`,
    a bundle of the lake; or the path of a safetensors checkpoint."""
    preprocess: Preprocessing = Preprocessing()
    views: ViewChanges = ViewChanges()
    """How far two views of an image differ, which the network learns to see as one."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Of stochastic gradient descent, for 256 images a step; it is scaled to `batch_size`. It falls
    along a cosine to 0, except that of the predictor, which stays."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of stochastic gradient descent, not Nesterov's."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Of matrices and kernels, not of biases and norms."""
    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=64, ge=2)
    """Images of one step over all workers together."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the network's passes in training; losses and weights are in fp32 either way."""
    probe: Probe | None = Probe()
    """Judge features by the labels that images of parts train and val may have. Weights depend on
    no label. Left out where no image has one, or with `probe: null`."""
    use_prepared: bool = True
    """Read pixels that `prepare` made by the same recipe, for the images that have some."""
    world_size: int = Field(default=2, ge=1)
    """Workers that train together; part of the result."""
    seed: int = Field(default=0, ge=0)
    """Seed of start weights, order and views."""
    allow_leaks: bool = False
    """Train although the split leaks; the model card says so."""

    _outside_identity: ClassVar[frozenset[str]] = JobSpec._outside_identity | {"use_prepared"}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.inner_fold is not None and self.fold is None:
            raise ValueError("inner_fold needs fold, the one that is held out")
        if self.inner_fold is not None and self.inner_fold == self.fold:
            raise ValueError("inner_fold must be another fold than the one held out")
        if self.batch_size < 2 * self.world_size:
            raise ValueError(
                f"batch_size must be two images for each of the {self.world_size} workers at least"
            )
        return self
