"""Which backend scores on which device; no torch, no OpenVINO."""

from schemas.bundle import BACKEND_FILES, TORCH_CUDA_FP32, BundleConfig
from schemas.errors import BundleError


def choose_backend(config: BundleConfig, wanted: str | None, device: str) -> str:
    """The backend asked for, or the bundle's own choice for a CPU, or torch on a GPU.

    ``device`` is ``cpu`` or begins with ``cuda``.

    Raises:
        BundleError: when the bundle has no such backend.
    """
    if wanted is None:
        return TORCH_CUDA_FP32 if device.startswith("cuda") else config.backend
    on_gpu = [TORCH_CUDA_FP32] if device.startswith("cuda") else []
    offered = sorted({*config.backends, config.backend, *on_gpu})
    if wanted not in offered or wanted not in BACKEND_FILES:
        raise BundleError(
            "The bundle has no such backend",
            where=config.name,
            got=wanted,
            remedy=f"it has {', '.join(offered)}",
        )
    return wanted
