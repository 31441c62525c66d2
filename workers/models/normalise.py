"""A network that takes pixels as stored: scaling and normalisation are its first step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """Apply ``network`` to ``(pixels / 255 - mean) / std``.

    Input: uint8 (N, C, H, W). Output: what the network returns, e.g. float32 (N, classes).
    """

    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        mean_C = torch.tensor(mean, dtype=torch.float64)
        std_C = torch.tensor(std, dtype=torch.float64)
        scale_C11 = (1 / (255 * std_C)).float().view(-1, 1, 1)
        shift_C11 = (-mean_C / std_C).float().view(-1, 1, 1)
        self.register_buffer("scale_C11", scale_C11, persistent=False)
        self.register_buffer("shift_C11", shift_C11, persistent=False)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Raw outputs of the network."""
        outputs: Tensor = self.network(pixels_NCHW.float() * self.scale_C11 + self.shift_C11)
        return outputs
