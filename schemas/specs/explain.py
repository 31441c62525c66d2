"""The spec of `explain`: where in an image a classifier looked."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name, Share


class ExplainSpec(JobSpec):
    """Write heat maps of chosen images as overlays, and what they lie on as rows."""

    kind: Literal["explain"] = "explain"
    dataset: Name
    """The data set whose images are explained."""
    model: str
    """A bundle of the lake: name, or name@version. It must have scored the images."""
    choose: Literal["wrong", "certain", "uncertain", "query"] = "wrong"
    """Images labelled wrongly, most certain first; those the model is most or least certain of;
    or those that `query` selects."""
    query: str | None = None
    """SQL over the lake that selects a column `image_id`, for choose query; its order counts."""
    split: Name | None = None
    """Choose among the images of a split's `parts` only; among all when not given."""
    parts: tuple[Literal["train", "val", "test"], ...] = ("test",)
    """Parts of the split."""
    limit: int = Field(default=64, ge=1)
    """Images at most."""
    target: Literal["predicted", "actual"] | str = "predicted"
    """Whose evidence is shown: of the predicted class, of the actual one, or of a class by name."""
    method: Literal["gradcam", "gradcam++"] = "gradcam"
    """Grad-CAM (Selvaraju et al. 2017) or Grad-CAM++ (Chattopadhay et al. 2018)."""
    layer: str | None = None
    """The network's module whose activations are weighted; the last one before the pooling when
    not given."""
    regions: str | None = None
    """A folder of masks to point at, one or more an image, named after it; see docs/explain.md."""
    annotations: str | None = None
    """The source of the boxes to point at, as it stands in the table `annotations`."""
    opacity: Share = 0.4
    """How strongly the heat map covers the image."""

    @model_validator(mode="after")
    def _query_where_chosen(self) -> Self:
        if (self.choose == "query") != (self.query is not None):
            raise ValueError("query and choose: query need each other")
        if self.regions is not None and self.annotations is not None:
            raise ValueError("regions and annotations are two answers to one question: give one")
        if not self.parts:
            raise ValueError("parts: name one at least")
        if self.split is None and "parts" in self.model_fields_set:
            raise ValueError("parts need split, whose they are")
        return self
