"""A classifier without its last layer: what that layer would get is an image's feature vector."""

from typing import Any

from torch import Tensor, nn


class Features(nn.Module):
    """The features of a timm classifier, just before its last layer.

    Input: what the network takes. Output: (N, D), where D is the network's ``head_hidden_size``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Feature vectors."""
        maps_NDHW = self.network.forward_features(images_NCHW)
        features_ND: Tensor = self.network.forward_head(maps_NDHW, pre_logits=True)
        return features_ND.flatten(1)
