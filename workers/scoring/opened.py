"""A bundle whose network is ready to compute; no torch, no OpenVINO."""

from dataclasses import dataclass

from schemas.bundle import BundleConfig
from workers.scoring.forward import Batched


@dataclass(frozen=True)
class Opened:
    """A bundle made ready, whatever its outputs mean."""

    config: BundleConfig
    network: Batched
    backend: str
    """What computes it, as rows name it."""
