"""Weights as a bundle holds them."""

import safetensors.torch
from torch import nn


def save_weights(network: nn.Module) -> bytes:
    """The network's state as a safetensors file."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return safetensors.torch.save(state)
