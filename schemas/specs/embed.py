"""The spec of `embed`: feature vectors of images, as a bundle's network sees them."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name


class EmbedSpec(JobSpec):
    """Write a model's feature vector of every image that has none yet."""

    kind: Literal["embed"] = "embed"
    dataset: Name
    """The data set to embed."""
    model: str
    """A bundle of the lake: name, or name@version; the vector is what its head would get."""
    images: Literal["kept", "all"] = "kept"
    """Images that cleaning kept, or all that are catalogued."""
    split: Name | None = None
    """Embed the images of a split's `parts` only; all when not given."""
    parts: tuple[Literal["train", "val", "test"], ...] = Field(
        default=("train", "val", "test"), min_length=1
    )
    """Parts of the split."""
    use_prepared: bool = True
    """Read pixels that `prepare` made by the bundle's recipe, for the images that have some."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images of one forward pass; the bundle's own when not given."""

    _outside_identity: ClassVar[frozenset[str]] = JobSpec._outside_identity | {
        "use_prepared",
        "batch_size",
    }

    @model_validator(mode="after")
    def _parts_of_a_split(self) -> Self:
        if self.split is None and "parts" in self.model_fields_set:
            raise ValueError("parts need split, whose they are")
        return self
