"""A bundle of a tiny network, made once."""

from collections.abc import Mapping

import cv2
import numpy as np
import pytest
import torch

from schemas.bundle import Preprocessing
from tests.workers.models.weights import save_weights
from workers.models.classifier.bundling import BundleFacts, Validation, make_bundle
from workers.models.network import build_network
from workers.pixels.steps import Recipe

SIDE = 48


def picture(seed: int) -> bytes:
    """A PNG of a smooth random image."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 6), dtype=np.uint8)
    image = cv2.resize(small, (60, 50), interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".png", image)[1].tobytes())


@pytest.fixture(scope="session")
def bundle() -> Mapping[str, bytes]:
    """The files of a bundle of two classes."""
    torch.manual_seed(3)
    torch.set_num_threads(1)
    network = build_network("test_efficientnet", 2, 1)
    with torch.no_grad():  # scores that differ between images
        network.get_classifier().weight.mul_(40)
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (40, 6, 6), dtype=np.uint8)
    pixels = np.stack([cv2.resize(one, (SIDE, SIDE)) for one in small])[:, None]
    facts = BundleFacts(
        name="tiny",
        architecture="test_efficientnet",
        classes=("no", "yes"),
        positive="yes",
        rule="youden",
        data={"dataset": "pictures", "train": {"no": 3, "yes": 4}},
        training={},
        fingerprint="f" * 16,
        batch=8,
    )
    validation = Validation(pixels, np.arange(40) % 2, [f"p{i // 2}" for i in range(40)])
    recipe = Recipe(size=SIDE, channels=1).to_dict()
    preprocessing = Preprocessing(recipe=recipe, mean=(0.5,), std=(0.25,))
    return make_bundle(save_weights(network), preprocessing, facts, validation)
