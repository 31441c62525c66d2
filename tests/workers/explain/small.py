"""The files of a bundle of a tiny network, made without measuring anything."""

from collections.abc import Mapping

import torch

from schemas.bundle import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    BundleConfig,
    Head,
    OperatingPoint,
    Preprocessing,
    digest,
    make_model_id,
)
from tests.workers.models.weights import save_weights
from workers.models.classifier.heads import trained_outputs
from workers.models.network import build_network
from workers.pixels.steps import Recipe

ARCHITECTURE = "test_efficientnet"


def small_bundle(
    classes: tuple[str, ...],
    *,
    size: int = 48,
    point: OperatingPoint | None = None,
    head: Head = "softmax",
    weights: bytes | None = None,
) -> Mapping[str, bytes]:
    """`config.json` and weights; random ones where none are given."""
    torch.manual_seed(3)
    outputs = trained_outputs(head, len(classes))
    if weights is None:
        weights = save_weights(build_network(ARCHITECTURE, outputs, 1))
    preprocessing = Preprocessing(
        recipe=Recipe(size=size, channels=1).to_dict(), mean=(0.5,), std=(0.25,)
    )
    plain = BundleConfig(
        architecture=ARCHITECTURE,
        num_classes=outputs,
        model_id="",
        name="tiny",
        family="classifier",
        classes=classes,
        head=head,
        preprocessing=preprocessing,
        operating_point=point,
        files={WEIGHTS_FILE: digest(weights)},
    )
    model_id = make_model_id(weights, ARCHITECTURE, classes, preprocessing, plain.calibration, head)
    config = plain.model_copy(update={"model_id": model_id})
    return {CONFIG_FILE: config.to_json(), WEIGHTS_FILE: weights}
