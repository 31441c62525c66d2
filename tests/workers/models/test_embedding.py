"""Features are what the last layer of a network gets, whatever the architecture."""

import pytest
import torch

from workers.models.classifier.embedding import Features
from workers.models.network import build_network


@pytest.mark.parametrize(
    "architecture",
    [
        "resnet18",
        "densenet121",
        "efficientnet_b0",
        "mobilenetv2_100",
        "vgg11",
        "mobilenetv3_small_050",
        "convnext_atto",
    ],
)
def test_the_last_layer_over_features_is_the_network(architecture: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = build_network(architecture, 3, 1).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        features = Features(network).eval()(images)
        again = network.get_classifier()(features)
        assert torch.allclose(again, network(images), atol=1e-6)
    assert features.shape == (2, network.head_hidden_size)
