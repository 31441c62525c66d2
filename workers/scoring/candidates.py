"""The backends a network could be scored with on this machine, for measuring them."""

from collections.abc import Mapping

import torch
from torch import nn

from schemas.bundle import BACKENDS, TORCH_FP32
from workers.scoring.cuda_forward import make_forward
from workers.scoring.forward import Batched, MakeForward
from workers.scoring.measure import Candidate
from workers.scoring.openvino_forward import PRECISIONS, OpenVinoForward


def candidates(
    whole: nn.Module, files: Mapping[str, bytes], batch: int, gpu_batch: int
) -> dict[str, Candidate]:
    """Every backend this machine may have, by name; those of a GPU only where there is one.

    ``whole`` takes uint8 pixels; ``files`` are the bundle's. A GPU is there when this process may
    use it: a bundle made in a process without one states float32 as its backend on a GPU.
    """
    on_gpu = torch.cuda.is_available()
    return {
        name: Candidate(_maker(name, whole, files), gpu_batch if one.device == "cuda" else batch)
        for name, one in BACKENDS.items()
        if one.device == "cpu" or on_gpu
    }


def eager(whole: nn.Module, batch: int) -> Batched:
    """Eager PyTorch in float32 on a CPU, which every backend must agree with."""
    return Batched(lambda size: make_forward(whole, TORCH_FP32, size), batch)


def _maker(name: str, whole: nn.Module, files: Mapping[str, bytes]) -> MakeForward:
    if BACKENDS[name].runtime == "torch":
        return lambda batch: make_forward(whole, name, batch)
    xml, weights = BACKENDS[name].files
    return lambda batch: OpenVinoForward((files[xml], files[weights]), batch, PRECISIONS[name])
