"""The publish gate of a score job, and the budget of a model that catches up with an archive."""

from typing import Literal

from pydantic import Field

from schemas.specs.base import Share, Spec


class Gate(Spec):
    """Limits that a run keeps to become visible; a limit that is null is not checked.

    The reference is what the same model scored in the same data set, in published runs of the last
    `window` nights on which it scored anything.
    """

    reject_share: Share | None = 0.05
    """Largest share of rejects among the images of the run."""
    min_count: int = Field(default=1, ge=0)
    """Fewest images that came, scored or rejected; of rejects `reject_share` judges."""
    psi: float | None = Field(default=0.25, gt=0)
    """Largest population stability index of any class's probability, over tenths of the
    reference."""
    ks: Share | None = 0.2
    """Largest gap between the distribution functions of run and reference (Kolmogorov-Smirnov), of
    any class's probability."""
    class_share: Share | None = 0.15
    """Largest change of any class's share among the labels; of a detector also of the share of
    images on which it finds nothing from its operating point on (`none`)."""
    p_value: float = Field(default=0.001, gt=0, le=1)
    """Every figure above but `min_count` counts where chance makes one as large less often."""
    window: int = Field(default=14, ge=1)
    """Nights of the reference."""
    min_reference: int = Field(default=200, ge=1)
    """Images of the reference below which nothing is compared."""
    min_compared: int = Field(default=50, ge=1)
    """Scored images of the run below which nothing is compared: chance alone moves so few."""
    short_history: Literal["publish", "hold"] = "publish"
    """What becomes of a run that there is too little to compare: publish it with a warning, or hold
    it."""


class Budget(Spec):
    """What a night may re-score with a model that has not yet scored what the archive holds."""

    images: int | None = Field(default=None, ge=1)
    """Images a night."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """GPU hours a night."""
    slice_images: int = Field(default=5000, ge=1)
    """Images of a slice. Each slice is a run of its own with its own gate; between two of them the
    budget and the night's closing time are looked at."""
