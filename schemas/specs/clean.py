"""The spec of `clean`: find what should not be used, and say why."""

from typing import Literal

from pydantic import Field

from schemas.specs.base import JobSpec, Name, Spec


class NearDuplicates(Spec):
    """When an image repeats another."""

    max_distance: int = Field(default=4, ge=0, le=8)
    """Hamming distance of 64-bit perceptual hashes up to which an image repeats a kept one."""


class CleanSpec(JobSpec):
    """Check size, exposure and sharpness, find scale bars, and drop near-duplicates."""

    kind: Literal["clean"] = "clean"
    dataset: Name
    """The data set to clean."""
    min_side: int = Field(default=0, ge=0)
    """Images with a side below this many pixels are dropped; 401 drops 400x400 and less."""
    phash: NearDuplicates | None = NearDuplicates()
    """When an image repeats another; null keeps near-duplicates."""
    min_contrast: float = Field(default=2.0, ge=0)
    """Standard deviation of grey values (0-255) below which an image is blank."""
    min_brightness: float = Field(default=4.0, ge=0, le=255)
    """Mean grey value (0-255) below which an image is dark."""
    min_sharpness: float = Field(default=0.004, ge=0)
    """Sharpness below which an image is blurred; 0 keeps all. `quality.sharpness` shows values."""
