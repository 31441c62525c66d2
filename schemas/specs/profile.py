"""The spec of `profile`: the distributions of a data set, and the records that look wrong."""

from typing import Literal

from pydantic import Field

from schemas.specs.base import JobSpec, Name


class ProfileSpec(JobSpec):
    """Count images by sex, ages, sizes and box shares by label; list suspicious records."""

    kind: Literal["profile"] = "profile"
    dataset: Name
    """The data set to describe."""
    images: Literal["kept", "all"] = "all"
    """All images that are catalogued, or those that cleaning kept."""
    source: str | None = None
    """Source of the boxes, as it stands in `annotated_images`; the only one of the data set when
    not given."""
    adult_labels: tuple[str, ...] = ()
    """Labels of diseases of adults: an age of 0 is suspicious there. When empty, those whose
    patients have a median age of 18 at least."""
    max_age: float = Field(default=110, gt=0)
    """Years above which an age is suspicious."""
    max_box_share: float = Field(default=0.9, gt=0, le=1)
    """Share of the image above which a box is suspicious."""
    min_box_share: float = Field(default=0.0001, ge=0, lt=1)
    """Share of the image below which a box is suspicious."""
    pictures: bool = True
    """Draw the distributions as PNG files, with a CSV file of each, into the lake, below
    `reports/profile/`."""
