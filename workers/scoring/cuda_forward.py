"""Forward passes in PyTorch on a GPU: pinned memory, full float32 where stated, CUDA graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from schemas.bundle import BACKENDS
from workers.scoring.forward import Forward, OutOfDeviceMemory, Outputs, Pixels
from workers.scoring.torch_forward import TORCH_MODES, TorchCompute, TorchForward, TorchMode

WARM_UPS = 3
"""Passes before a recording, in which libraries pick kernels and ask for memory."""

_Compute = Callable[[Tensor], Tensor]


@contextmanager
def full_float32(*, benchmark: bool = False) -> Iterator[None]:
    """Let a GPU's convolutions compute in float32 proper.

    PyTorch's default for them is TensorFloat-32, which keeps ten bits after the point; for matrix
    products it is float32 already. ``benchmark`` has cuDNN try kernels, which pays for batches of
    one size.
    """
    with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=False):
        yield


class CudaForward:
    """A network that takes uint8 (B, C, H, W), on a GPU.

    Batches have one size, so pixels go through one pinned buffer to one buffer on the device, and
    a graph recorded at the first pass serves all later ones.
    """

    def __init__(
        self, network: nn.Module, batch: int, mode: TorchMode, device: str = "cuda"
    ) -> None:
        self.batch = batch
        self._mode = mode
        self._device = torch.device(device)
        self._compute = TorchCompute(network, mode, self._device)
        self._passes: _Passes | None = None

    def __call__(self, pixels_BCHW: Pixels) -> Outputs:
        """Raw outputs (B, K).

        Raises:
            OutOfDeviceMemory: when the device has no room for the batch.
        """
        pixels = torch.from_numpy(pixels_BCHW)
        try:
            with full_float32(benchmark=True):
                if self._passes is None:
                    self._passes = _Passes(self._compute, pixels, self._device, self._mode.graphed)
                outputs: Outputs = self._passes(pixels).numpy()
        except torch.cuda.OutOfMemoryError as error:
            self._passes = None
            torch.cuda.empty_cache()
            raise OutOfDeviceMemory from error
        return outputs


class _Passes:
    """Buffers for one shape of pixels, and the computation between them."""

    def __init__(
        self, compute: _Compute, pixels_BCHW: Tensor, device: torch.device, graphed: bool
    ) -> None:
        self._host = torch.empty_like(pixels_BCHW, pin_memory=True)
        self._pixels = torch.zeros_like(pixels_BCHW, device=device)
        self._compute = _recorded(compute, self._pixels) if graphed else compute

    def __call__(self, pixels_BCHW: Tensor) -> Tensor:
        """Outputs in the host's memory; returns when they are there."""
        self._host.copy_(pixels_BCHW)
        self._pixels.copy_(self._host, non_blocking=True)
        return self._compute(self._pixels).cpu()


def _recorded(compute: _Compute, pixels_BCHW: Tensor) -> _Compute:
    """Record ``compute`` over this very buffer; the recording answers in one buffer of its own."""
    current = torch.cuda.current_stream(pixels_BCHW.device)
    aside = torch.cuda.Stream(pixels_BCHW.device)
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            compute(pixels_BCHW)
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = compute(pixels_BCHW)

    def replay(_pixels_BCHW: Tensor) -> Tensor:
        graph.replay()
        return outputs

    return replay


def make_forward(whole: nn.Module, backend: str, batch: int, device: str = "cuda") -> Forward:
    """Forward passes of a network that takes uint8 pixels, by one of PyTorch's backends.

    ``device`` says which GPU, for backends of a GPU.
    """
    mode = TORCH_MODES[backend]
    if BACKENDS[backend].device == "cuda":
        return CudaForward(whole, batch, mode, device)
    return TorchForward(whole, batch, mode)
