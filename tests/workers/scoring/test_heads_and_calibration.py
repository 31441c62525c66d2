"""Bundles with other heads than softmax, with a temperature, and with eager backends alone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from schemas.bundle import (
    BACKENDS,
    CARD_FILE,
    CONFIG_FILE,
    OPENVINO_FP32,
    OPENVINO_MIXED,
    TORCH_BF16,
    TORCH_CUDA_FP32,
    TORCH_FP32,
    WEIGHTS_FILE,
    Preprocessing,
    make_model_id,
    parse_config,
)
from schemas.errors import BundleError
from tests.workers.models.weights import save_weights
from tests.workers.scoring.conftest import SIDE, picture
from workers.models.classifier.bundling import BundleFacts, Validation, make_bundle
from workers.models.classifier.outputs import probabilities
from workers.models.network import build_network, load_weights
from workers.pixels.steps import Recipe
from workers.reading import Preparer
from workers.scoring import measure, openvino_scorer, torch_scorer

CLASSES = ("normal", "benign", "malignant")
FACTS = BundleFacts(
    name="graded",
    architecture="test_efficientnet",
    classes=CLASSES,
    positive=None,
    rule="youden",
    data={"dataset": "pictures"},
    fingerprint="f" * 16,
    batch=8,
)
PREPROCESSING = Preprocessing(
    recipe=Recipe(size=SIDE, channels=1).to_dict(), mean=(0.5,), std=(0.25,)
)


def _network(outputs: int) -> torch.nn.Module:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    network = build_network("test_efficientnet", outputs, 1).eval()
    with torch.no_grad():  # scores that differ between images
        network.get_classifier().weight.mul_(60)
    return network


def _pixels() -> NDArray[np.uint8]:
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (45, 6, 6), dtype=np.uint8)
    return np.stack([cv2.resize(one, (SIDE, SIDE)) for one in small])[:, None]


def _outputs(network: torch.nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    with torch.inference_mode():
        images = (torch.from_numpy(pixels).double() / 255 - 0.5) / 0.25
        outputs: NDArray[np.float64] = network.double()(images).numpy()
    network.float()
    return outputs


def _validation(network: torch.nn.Module, by: tuple[int, ...], classes: int = 3) -> Validation:
    """Images whose classes follow their outputs weighted ``by``, but for every fourth."""
    pixels = _pixels()
    ranks = (_outputs(network, pixels) @ np.array(by)).argsort().argsort()
    actual = (ranks * classes // len(ranks)).astype(np.int64)
    actual[::4] = (actual[::4] + 1) % classes
    return Validation(pixels, actual, [f"p{i // 2}" for i in range(len(pixels))])


@pytest.fixture(scope="module")
def corn() -> Mapping[str, bytes]:
    network = _network(2)
    facts = replace(FACTS, head="corn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "LEAST_SECONDS", 0.01)
        validation = _validation(network, (1, 1))
        return make_bundle(save_weights(network), PREPROCESSING, facts, validation)


def _scores(bundle: Mapping[str, bytes], backend: str, blobs: list[bytes]) -> NDArray[np.float32]:
    stated: dict[str, Any] = {
        "model_id": parse_config(bundle[CONFIG_FILE]).model_id,
        "scored_at": "2026-11-21T08:00:00+00:00",
        "backend": backend,
        "device": "cpu",
    }
    rows = pa.table(
        {
            "image_id": [f"{number:032x}" for number in range(len(blobs))],
            "uri": [f"archive/{number}.png" for number in range(len(blobs))],
            "etag": ["e"] * len(blobs),
            "frame": pa.array([0] * len(blobs), pa.int32()),
        }
    )
    load = torch_scorer.load if BACKENDS[backend].runtime == "torch" else openvino_scorer.load
    table = load(stated, bundle)(rows, blobs).tables["predictions"]
    return np.array(table["scores"].to_pylist(), np.float32)


def test_every_backend_scores_ordered_classes_alike(corn: Mapping[str, bytes]) -> None:
    config = parse_config(corn[CONFIG_FILE])
    blobs = [picture(seed) for seed in range(13)]
    network = build_network(config.architecture, config.num_classes, 1).eval()
    load_weights(network, corn[WEIGHTS_FILE])
    preparer = Preparer(config.preprocessing.recipe)
    pixels = np.stack([preparer.prepare(blob, 0) for blob in blobs])
    first, second = expit(_outputs(network, pixels)).T
    plain = np.stack([1 - first, first * (1 - second), first * second], axis=1)
    powered = plain ** (1 / config.calibration.temperature)
    expected = powered / powered.sum(axis=1, keepdims=True)
    assert np.ptp(expected, axis=0).min() > 0.03
    assert config.calibration.temperature != 1
    for backend in (TORCH_FP32, OPENVINO_FP32):
        assert np.abs(_scores(corn, backend, blobs) - expected).max() < 1e-4
    for backend in (TORCH_BF16, OPENVINO_MIXED):
        assert np.abs(_scores(corn, backend, blobs) - expected).max() < 0.02
    assert config.backends[OPENVINO_FP32].largest_difference < 1e-4
    assert not config.left_out


def test_the_head_enters_the_identity_and_the_card(corn: Mapping[str, bytes]) -> None:
    config = parse_config(corn[CONFIG_FILE])
    assert (config.head, config.num_classes, config.classes) == ("corn", 2, CLASSES)
    same = (corn[WEIGHTS_FILE], config.architecture, CLASSES, PREPROCESSING, config.calibration)
    assert config.model_id == make_model_id(*same, "corn")
    assert config.model_id != make_model_id(*same)
    card = corn[CARD_FILE].decode()
    assert "CORN" in card
    assert f"temperature of {config.calibration.temperature:g}" in card


def test_timm_opens_a_bundle_of_ordered_classes(corn: Mapping[str, bytes], tmp_path: Path) -> None:
    for name, content in corn.items():
        (tmp_path / name).write_bytes(content)
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert network.num_classes == 2


def _told(bundle: Mapping[str, bytes]) -> dict[str, float]:
    told: dict[str, float] = parse_config(bundle[CONFIG_FILE]).metrics["calibration"]
    return told


def test_a_temperature_is_fitted_before_the_threshold() -> None:
    network = _network(2)
    validation = _validation(network, (-1, 1), classes=2)
    facts = replace(FACTS, classes=("no", "yes"), positive="yes", backends="eager")
    weights = save_weights(network)
    files = make_bundle(weights, PREPROCESSING, facts, validation)
    plain = make_bundle(weights, PREPROCESSING, replace(facts, calibrate=False), validation)
    config, uncalibrated = (parse_config(one[CONFIG_FILE]) for one in (files, plain))
    temperature = config.calibration.temperature
    assert temperature != 1
    assert uncalibrated.calibration.temperature == 1
    assert config.model_id != uncalibrated.model_id
    outputs = _outputs(network, validation.pixels_NCHW).astype(np.float32)
    scores = probabilities(outputs, temperature)
    before, after = (
        log_loss(validation.actual_N, softmax(outputs.astype(np.float64) / by, axis=1))
        for by in (1.0, temperature)
    )
    assert _told(files) == {
        "nll_before": pytest.approx(before, abs=1e-4),
        "nll_after": pytest.approx(after, abs=1e-4),
    }
    assert after < before
    assert f"from {_told(files)['nll_before']:.4f} to" in files[CARD_FILE].decode()
    assert "No temperature was fitted" in plain[CARD_FILE].decode()
    # A temperature keeps the order of two classes, so that the same images lie above the point.
    assert config.operating_point is not None
    assert uncalibrated.operating_point is not None
    above = scores[:, 1] >= config.operating_point.threshold
    plain_above = probabilities(outputs)[:, 1] >= uncalibrated.operating_point.threshold
    assert (above == plain_above).all()
    assert config.operating_point.threshold != uncalibrated.operating_point.threshold


def test_an_eager_bundle_measures_nothing() -> None:
    network = _network(3)
    facts = replace(FACTS, backends="eager")
    validation = _validation(network, (-1, 0, 1))
    files = make_bundle(save_weights(network), PREPROCESSING, facts, validation)
    assert set(files) == {CONFIG_FILE, CARD_FILE, WEIGHTS_FILE}
    config = parse_config(files[CONFIG_FILE])
    assert (config.backend, config.gpu_backend) == (TORCH_FP32, TORCH_CUDA_FP32)
    assert config.backends == {}
    assert "None was measured" in files[CARD_FILE].decode()
    blobs = [picture(seed) for seed in range(3)]
    assert _scores(files, TORCH_FP32, blobs).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    with pytest.raises(BundleError, match=r"no such backend for a CPU.*It has torch-fp32\."):
        _scores(files, OPENVINO_FP32, blobs)
