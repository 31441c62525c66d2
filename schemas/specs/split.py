"""The spec of `split`: put images into train, val and test so that nothing leaks."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name, Share, Spec


class Parts(Spec):
    """The share of each part; the shares add up to 1."""

    train: Share = 0.7
    val: Share = 0.1
    test: Share = 0.2

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"the shares of train, val and test must add up to 1, not to {total:g}"
            )
        return self


class PerClass(Spec):
    """How many images of each class a part keeps; all where no number is given."""

    train: int | None = Field(default=None, ge=1)
    val: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _some_number(self) -> Self:
        if self.train is None and self.val is None and self.test is None:
            raise ValueError("per_class needs a number for train, val or test")
        return self


class SplitSpec(JobSpec):
    """Split a data set by patient and duplicate group, and audit the result."""

    kind: Literal["split"] = "split"
    dataset: Name
    """The data set to split."""
    split_name: Name = Field(default_factory=lambda given: f"{given['dataset']}-{given['name']}")
    """Name of the split; `<dataset>-<job name>` when not given."""
    mode: Literal["make", "given", "random"] = "make"
    """Make a split by group; or take over the data set's own and drop what leaks into test; or
    split image by image, as a naive split would: for audits, train refuses it where it leaks."""
    parts: Parts = Parts()
    """Share of each part, for a split that is made."""
    val_share: Share = 0.0
    """Share of a given training part that becomes val, by group, for mode given: a data set's own
    split often has no val."""
    per_class: PerClass | None = None
    """Keep this many images of each class in a part, drawn from `seed`; the others get no part.
    All images get one when not given."""
    folds: int = Field(default=0, ge=0, le=50)
    """Number of folds over the images outside test; 0 for none."""
    split_distance: int = Field(default=2, ge=0, le=8)
    """Images within this Hamming distance of each other stay together."""
    max_group_share: Share = 0.01
    """Share of the images that one group may hold before the job stops."""
    seed: int = Field(default=0, ge=0)
    """Seed of the assignment."""

    @model_validator(mode="after")
    def _val_of_a_given_split(self) -> Self:
        if self.val_share and self.mode != "given":
            raise ValueError("val_share is for mode given: a split that is made has `parts`")
        return self
