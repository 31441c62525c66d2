"""The spec of `evaluate_detector`: compare detections with annotations, part by part."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name


class EvaluateDetectorSpec(JobSpec):
    """Compare a detector's boxes with annotated ones, part by part."""

    kind: Literal["evaluate_detector"] = "evaluate_detector"
    dataset: Name
    """The data set to evaluate on."""
    split: Name
    """Name of the split whose parts are reported."""
    model: str
    """A detector's bundle of the lake: name, or name@version."""
    annotations: str
    """The source of the boxes, as it stands in the table `annotations`."""
    ignored: str | None = None
    """A source of more regions: what lies in them counts neither for nor against a detection."""
    images: Literal["annotated", "all"] = "annotated"
    """Images that the source has looked at, with boxes or without; or all of the split, where those
    that the source does not name count as images without a box."""
    parts: tuple[Literal["train", "val", "test"], ...] = Field(
        default=("val", "test"), min_length=1
    )
    """Parts to report."""
    fold: int | None = Field(default=None, ge=0)
    """Fold that the model's training held out; it alone is reported, as part test."""
    iou: float = Field(default=0.25, gt=0, le=1)
    """Intersection over union from which a detection belongs to a lesion, in the table by category,
    the confusion matrix and FROC. Average precision has COCO's own ten."""
    threshold: Literal["bundle", "sweep"] = "bundle"
    """Confidence from which a detection counts in that table and matrix: the bundle's operating
    point, or the best of 0.00, 0.05 .. 1.00 by macro F1 on `sweep_part`."""
    sweep_part: Literal["train", "val"] = "val"
    """Part on which a sweep chooses; a threshold chosen on test would flatter it."""
    one_class: bool = False
    """Merge all categories into one, `lesion`, as a bundle that was trained so always does."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples over patients for the 95 % intervals; 0 for none."""
    seed: int = Field(default=0, ge=0)
    """Seed of the resampling."""
    study: Name | None = None
    """Name of the study the figures belong to; the job's name when not given."""
    trial: str | None = None
    """Name of the trial within the study; the bundle's name when not given."""
    pictures: bool = True
    """Draw the confusion matrix and the FROC curve as PNG files into the lake, below `reports/`."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        given = self.model_fields_set
        if self.fold is not None and "parts" in given:
            raise ValueError("fold takes the place of parts: leave one out")
        if self.fold is not None and self.threshold == "sweep":
            raise ValueError("a fold held out has no part to sweep on: leave threshold out")
        if "sweep_part" in given and self.threshold != "sweep":
            raise ValueError("sweep_part is of `threshold: sweep`: set that, or leave it out")
        if not self.bootstrap and "seed" in given:
            raise ValueError("seed is of the bootstrap, and there is none: leave it out")
        if self.ignored is not None and self.ignored == self.annotations:
            raise ValueError("ignored must be another source than annotations")
        return self
