"""Forward passes in PyTorch on a CPU, and what its backends do differently."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from schemas.bundle import (
    TORCH_BF16,
    TORCH_CUDA_BF16,
    TORCH_CUDA_COMPILED,
    TORCH_CUDA_FP16,
    TORCH_CUDA_FP32,
    TORCH_FP32,
)
from workers.scoring.forward import Outputs, Pixels


@dataclass(frozen=True)
class TorchMode:
    """How PyTorch computes a network."""

    autocast: torch.dtype | None = None
    """Automatic mixed precision; None computes in float32 throughout."""
    channels_last: bool = False
    compiled: bool = False
    graphed: bool = False
    """Recorded as a CUDA graph and replayed."""


TORCH_MODES: Mapping[str, TorchMode] = MappingProxyType(
    {
        TORCH_FP32: TorchMode(),
        TORCH_BF16: TorchMode(torch.bfloat16, channels_last=True),
        TORCH_CUDA_FP32: TorchMode(),
        TORCH_CUDA_BF16: TorchMode(torch.bfloat16, channels_last=True, graphed=True),
        TORCH_CUDA_FP16: TorchMode(torch.float16, channels_last=True, graphed=True),
        TORCH_CUDA_COMPILED: TorchMode(
            torch.float16, channels_last=True, compiled=True, graphed=True
        ),
    }
)


class TorchCompute:
    """A copy of a network on a device, computing in one mode; the original is left as it is."""

    def __init__(self, network: nn.Module, mode: TorchMode, device: torch.device) -> None:
        self._mode = mode
        self._device = device
        self._layout = torch.channels_last if mode.channels_last else torch.contiguous_format
        own = copy.deepcopy(network).eval().to(device)
        if mode.autocast is not None:
            _cast_once(own, mode.autocast)
        if mode.channels_last:
            own = own.to(memory_format=torch.channels_last)
        self._network = torch.compile(own, dynamic=False) if mode.compiled else own

    def __call__(self, pixels_BCHW: Tensor) -> Tensor:
        """Raw outputs (B, K) in float32 of uint8 pixels, both on the device."""
        with torch.inference_mode(), self._autocast():
            outputs: Tensor = self._network(pixels_BCHW.contiguous(memory_format=self._layout))
            return outputs.float()

    def _autocast(self) -> AbstractContextManager[object]:
        if self._mode.autocast is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._mode.autocast)


def _cast_once(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights that autocast would cast anew in every pass; the outputs are the same."""
    for module in network.modules():
        # Subclasses may compute with their weights first, which autocast does in float32.
        if type(module) in (nn.Conv2d, nn.Linear):
            module.to(dtype)


class TorchForward:
    """A network that takes uint8 (B, C, H, W), on a CPU."""

    def __init__(
        self, network: nn.Module, batch: int, mode: TorchMode = TORCH_MODES[TORCH_FP32]
    ) -> None:
        self.batch = batch
        self._compute = TorchCompute(network, mode, torch.device("cpu"))

    def __call__(self, pixels_BCHW: Pixels) -> Outputs:
        """Raw outputs (B, K)."""
        outputs: Outputs = self._compute(torch.from_numpy(pixels_BCHW)).numpy()
        return outputs
