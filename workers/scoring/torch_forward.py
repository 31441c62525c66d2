"""Forward passes in PyTorch on a CPU or a GPU."""

import torch
from torch import nn

from workers.scoring.forward import OutOfDeviceMemory, Outputs, Pixels


class TorchForward:
    """A network that takes uint8 (B, C, H, W), in eager mode and float32."""

    def __init__(self, network: nn.Module, batch: int, device: str = "cpu") -> None:
        self.batch = batch
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()

    def __call__(self, pixels_BCHW: Pixels) -> Outputs:
        """Raw outputs (B, K)."""
        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(pixels_BCHW).to(self._device)
                outputs: Outputs = self._network(pixels).float().cpu().numpy()
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfDeviceMemory from error
        return outputs
