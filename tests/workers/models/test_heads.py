"""Heads: probabilities of ordered classes, and whole networks out of a bundle's parts."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from schemas.bundle import Preprocessing
from schemas.errors import BundleError
from tests.workers.models.weights import save_weights
from workers.models.classifier.heads import Corn, head_module, trained_outputs, whole_network
from workers.models.network import build_network

PREPROCESSING = Preprocessing(recipe={"size": 32, "channels": 1}, mean=(0.4,), std=(0.2,))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_corn_multiplies_conditional_probabilities(classes: int) -> None:
    generator = torch.Generator().manual_seed(2)
    tasks = 3 * torch.randn(20, classes - 1, generator=generator)
    found = Corn()(tasks).exp().numpy()
    conditional = expit(tasks.double().numpy())
    for image in range(20):
        above = np.concatenate([[1.0], np.cumprod(conditional[image]), [0.0]])
        # P(class = k) = P(class > k - 1) - P(class > k)
        assert found[image] == pytest.approx(above[:-1] - above[1:], abs=1e-6)
    assert found.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-6)
    # Rank consistency, which is what the head is for: P(class > k) never rises with k.
    exceeds = 1 - found.cumsum(axis=1)
    assert (np.diff(exceeds, axis=1) <= 1e-6).all()


def test_corn_stays_finite_where_a_sigmoid_is_zero() -> None:
    logs = Corn()(torch.tensor([[-300.0, 500.0], [400.0, -500.0]]))
    assert torch.isfinite(logs).all()
    assert logs.exp()[0].tolist() == [1.0, 0.0, 0.0]
    assert logs.exp()[1].tolist() == [0.0, 1.0, 0.0]


def test_a_network_is_trained_with_as_many_outputs_as_its_head_takes() -> None:
    for head in ("softmax", "corn"):
        outputs = trained_outputs(head, 4)  # type: ignore[arg-type]
        assert head_module(head)(torch.zeros(2, outputs)).shape == (2, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["softmax", "corn"])
def test_whole_network_is_normalisation_network_and_head(head: str) -> None:
    outputs = trained_outputs(head, 3)  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = build_network("test_efficientnet", outputs, 1).eval()
    whole = whole_network(
        build_network("test_efficientnet", outputs, 1),
        save_weights(network),
        head,  # type: ignore[arg-type]
        PREPROCESSING,
    ).eval()
    pixels = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        found = whole(pixels).softmax(dim=1)
        plain = network((pixels.float() / 255 - 0.4) / 0.2)
        expected = plain.softmax(dim=1) if head == "softmax" else Corn()(plain).exp()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_of_another_head_are_refused() -> None:
    weights = save_weights(build_network("test_efficientnet", 3, 1))
    with pytest.raises(BundleError, match="do not fit"):
        whole_network(build_network("test_efficientnet", 2, 1), weights, "corn", PREPROCESSING)
