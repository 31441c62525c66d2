"""The spec of `score`: run a bundle over every image that it has not scored yet."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name
from schemas.specs.gate import Budget, Gate

NIGHTLY = "nightly"
"""As a model: every version that is marked for nights."""


class ScoreSpec(JobSpec):
    """Score the kept images of a data set with a model bundle, each image once."""

    kind: Literal["score"] = "score"
    dataset: Name
    """The data set to score."""
    model: str
    """A bundle of the lake: name, or name@version; or `nightly`, for every version that is marked
    for nights (`rayward models NAME@VERSION --nightly`), each with a run and a gate of its own."""
    images: Literal["kept", "all"] = "kept"
    """Images that cleaning kept, or all that are catalogued."""
    split: Name | None = None
    """Score the images of a split's `parts` only; all when not given."""
    parts: tuple[Literal["train", "val", "test"], ...] = Field(
        default=("train", "val", "test"), min_length=1
    )
    """Parts of the split."""
    fold: int | None = Field(default=None, ge=0)
    """Score the images of this fold of the split, the one a training held out, and no others."""
    use_prepared: bool = True
    """Read pixels that `prepare` made by the bundle's recipe, for the images that have some."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images of one forward pass; the bundle's own, for which its backend was chosen, when not
    given. A GPU takes more at once."""
    backend: str | None = None
    """A backend of the bundle; the one chosen when the bundle was made, when not given."""
    gate: Gate | None = None
    """Limits that a run must keep to become visible; every run does when not given."""
    budget: Budget | None = None
    """What a night may re-score with a model that has yet to catch up with the archive; all of it
    when not given."""

    _outside_identity: ClassVar[frozenset[str]] = JobSpec._outside_identity | {
        "use_prepared",
        "batch_size",
        "backend",
        "gate",
        "budget",
    }

    @model_validator(mode="after")
    def _parts_of_a_split(self) -> Self:
        if self.split is None and self.model_fields_set & {"parts", "fold"}:
            raise ValueError("parts and fold need split, whose they are")
        if self.fold is not None and "parts" in self.model_fields_set:
            raise ValueError("fold takes the place of parts: leave one out")
        return self
