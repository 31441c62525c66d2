"""Which backend scores on which device; no torch, no OpenVINO."""

from schemas.bundle import BACKENDS, TORCH_CUDA_FP32, BundleConfig, Device
from schemas.errors import BundleError


def choose_backend(config: BundleConfig, wanted: str | None, device: str) -> str:
    """The backend asked for, or the bundle's own choice for the device.

    ``device`` is ``cpu`` or begins with ``cuda``.

    Raises:
        BundleError: when the bundle has no such backend for the device.
    """
    kind: Device = "cuda" if device.startswith("cuda") else "cpu"
    own = config.gpu_backend if kind == "cuda" else config.backend
    offered = {own, *config.backends} | ({TORCH_CUDA_FP32} if kind == "cuda" else set())
    usable = sorted(name for name in offered if name in BACKENDS and BACKENDS[name].device == kind)
    chosen = wanted or own
    if chosen not in usable:
        raise BundleError(
            f"The bundle has no such backend for a {'GPU' if kind == 'cuda' else 'CPU'}",
            where=config.name,
            got=chosen,
            remedy=f"it has {', '.join(usable)}",
        )
    return chosen


def choose_batch(config: BundleConfig, stated: int | None, device: str) -> int:
    """Images of one forward pass: those stated, or the bundle's own for the device."""
    if stated is not None:
        return stated
    return config.gpu_batch if device.startswith("cuda") else config.batch
