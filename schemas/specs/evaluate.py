"""The spec of `evaluate`: compare predictions with labels, part by part."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import JobSpec, Name, Spec

NotNegative = Annotated[float, Field(ge=0)]


class Severity(Spec):
    """Figures for classes whose confusions are not equally bad."""

    classes: tuple[str, ...] = Field(min_length=2)
    """The model's classes in the order of severity, mildest first."""
    costs: tuple[tuple[NotNegative, ...], ...] = ()
    """Cost of each decision: a row for each actual class, a column for each predicted one; the
    distance between the classes when empty."""
    false_positive_weights: tuple[tuple[NotNegative, ...], ...] = ()
    """Of the weighted precision: a row for each predicted class, a column for each actual one; all
    1 when empty."""

    @model_validator(mode="after")
    def _square(self) -> Self:
        count = len(self.classes)
        if len(set(self.classes)) < count:
            raise ValueError("classes name one class twice")
        for field in ("costs", "false_positive_weights"):
            rows = getattr(self, field)
            if rows and [len(row) for row in rows] != [count] * count:
                raise ValueError(f"{field} must have {count} rows and columns, one for each class")
        return self


class EvaluateSpec(JobSpec):
    """Compare predictions with labels, part by part."""

    kind: Literal["evaluate"] = "evaluate"
    dataset: Name
    """The data set to evaluate on."""
    split: Name
    """Name of the split whose parts are reported."""
    model: str
    """A bundle of the lake: name, or name@version."""
    parts: tuple[Literal["train", "val", "test"], ...] = Field(
        default=("val", "test"), min_length=1
    )
    """Parts to report."""
    fold: int | None = Field(default=None, ge=0)
    """Fold that the model's training held out; it alone is reported, as part test."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples over patients for the 95 % intervals; 0 for none."""
    seed: int = Field(default=0, ge=0)
    """Seed of the resampling."""
    study: Name | None = None
    """Name of the study the figures belong to; the job's name when not given."""
    trial: str | None = None
    """Name of the trial within the study; the split's name when not given."""
    severity: Severity | None = None
    """Under-triage rates, expected cost and weighted precision; none when not given."""
    subgroups: tuple[Literal["sex", "age", "site"], ...] = ()
    """Figures for each of these apart, too; ages in bands."""
    age_bands: tuple[float, ...] = Field(default=(18, 40, 60, 75), min_length=1)
    """Years at which age bands begin; the first band lies below the first."""
    against: str | None = None
    """Another bundle (name, or name@version) to compare with on the same images: DeLong's test of
    the areas under the curve, McNemar's test of the labels."""
    pictures: bool = True
    """Draw the curves and the confusion matrix as PNG files into the lake, below `reports/`."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(first >= second for first, second in pairwise((0, *self.age_bands))):
            raise ValueError("age_bands must ascend from above 0")
        return self

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        given = self.model_fields_set
        if "age_bands" in given and "age" not in self.subgroups:
            raise ValueError("age_bands are of the subgroup age: add it to subgroups, or leave out")
        if self.fold is not None and "parts" in given:
            raise ValueError("fold takes the place of parts: leave one out")
        if not self.bootstrap and "seed" in given:
            raise ValueError("seed is of the bootstrap, and there is none: leave it out")
        return self
