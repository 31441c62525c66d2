"""The spec of `review`: list boxes that annotations are likely to lack."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name, Share


class ReviewSpec(JobSpec):
    """List likely missing boxes: confident detections on which nothing is marked."""

    kind: Literal["review"] = "review"
    dataset: Name
    """The data set whose annotations are reviewed."""
    split: Name
    """A split of it: images of patients and near-duplicates that a model learned from are not
    judged by it."""
    annotations: str
    """The source of the boxes, as it stands in the table `annotations`."""
    models: tuple[str, ...] = Field(min_length=1)
    """Detectors of the lake (name, or name@version) that have scored the data set. With one for
    each fold that it held out, every image is judged."""
    ignored: str | None = None
    """A source of regions that are left out already; what lies in them is not listed again."""
    images: Literal["annotated", "all"] = "annotated"
    """Images that the source has looked at; or all of the split, where those that the source does
    not name count as images without a box."""
    iou: float = Field(default=0.25, gt=0, le=1)
    """Intersection over union from which a detection is of a marked box, or two of one lesion."""
    min_score: Share | None = None
    """Confidence from which a detection is listed; each bundle's operating point when not given."""
    limit: int = Field(default=1000, ge=1)
    """Boxes that are listed at most, the most confident first."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.models)) < len(self.models):
            raise ValueError("models name one bundle twice")
        if self.ignored is not None and self.ignored == self.annotations:
            raise ValueError("ignored must be another source than annotations")
        return self
