"""The spec of `score`: run a bundle over every image that it has not scored yet."""

from typing import ClassVar, Literal

from pydantic import Field

from schemas.specs.base import JobSpec, Name


class ScoreSpec(JobSpec):
    """Score the kept images of a data set with a model bundle, each image once."""

    kind: Literal["score"] = "score"
    dataset: Name
    """The data set to score."""
    model: str
    """A bundle of the lake: name, or name@version."""
    images: Literal["kept", "all"] = "kept"
    """Images that cleaning kept, or all that are catalogued."""
    use_prepared: bool = True
    """Read pixels that `prepare` made by the bundle's recipe, for the images that have some."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images of one forward pass; the bundle's own, for which its backend was chosen, when not
    given. A GPU takes more at once."""
    backend: str | None = None
    """A backend of the bundle; the one chosen when the bundle was made, when not given."""

    _outside_identity: ClassVar[frozenset[str]] = JobSpec._outside_identity | {
        "use_prepared",
        "batch_size",
        "backend",
    }
