"""The spec of `phantoms`: a seeded corpus of artificial images."""

from typing import Literal

from pydantic import Field

from schemas.specs.base import JobSpec, Share, Spec


class Modalities(Spec):
    """Relative numbers of images by modality."""

    us: float = Field(default=1.0, ge=0)
    """Ultrasound with four lesion looks and normal liver."""
    ct: float = Field(default=0.0, ge=0)
    """CT slices with and without a nodule, 16 bit."""
    xray: float = Field(default=0.0, ge=0)
    """Chest X-rays with and without an opacity."""


class PhantomsSpec(JobSpec):
    """Make a corpus of phantoms with metadata, boxes, masks and known flaws."""

    kind: Literal["phantoms"] = "phantoms"
    target: str = Field(min_length=1)
    """Directory, or s3://bucket/prefix, to write to."""
    count: int = Field(default=1000, ge=1)
    """Number of images."""
    size: int = Field(default=256, ge=32, le=2048)
    """Width of an image in pixels, about; heights follow from the modality."""
    modalities: Modalities = Modalities()
    scale_bar_share: Share = 0.3
    """Share of ultrasound images with a blue or yellow scale bar."""
    near_duplicate_share: Share = 0.05
    """Share of images that repeat another with tiny changes."""
    duplicate_share: Share = 0.01
    """Share of images whose bytes equal another's."""
    broken_share: Share = 0.02
    """Share of files that are broken."""
    sites: int = Field(default=1, ge=1, le=20)
    """Number of sites; each renders with a gain and contrast of its own."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything."""
