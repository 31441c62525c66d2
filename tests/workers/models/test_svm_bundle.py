"""The bundle of a support vector machine: it scores images as scikit-learn scores their vectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from schemas.bundle import (
    CARD_FILE,
    CONFIG_FILE,
    OPENVINO_FP32,
    TORCH_FP32,
    WEIGHTS_FILE,
    Preprocessing,
    parse_config,
)
from schemas.errors import BundleError
from tests.workers.models.weights import save_weights
from workers.metrics.scores import macro_auc
from workers.models.classifier.bundling import BundleFacts, Validation, make_bundle
from workers.models.classifier.svm import SvmSettings, fit_svm, patient_folds
from workers.models.classifier.svm_bundling import Examined, head_outputs, svm_bundle
from workers.models.classifier.svm_head import SvmParameters
from workers.models.network import build_network
from workers.pixels.steps import Recipe
from workers.scoring import embedder, openvino_scorer, torch_scorer

CLASSES = ("mild", "moderate", "severe")
ARCHITECTURE = "test_efficientnet"
SIDE = 32
COUNT = 90
SETTINGS = SvmSettings(c=4.0, gamma=0.005)

Files = Mapping[str, bytes]


def _facts(name: str, **changes: Any) -> BundleFacts:
    values: dict[str, Any] = {
        "name": name,
        "architecture": ARCHITECTURE,
        "classes": CLASSES,
        "positive": None,
        "rule": "youden",
        "data": {"dataset": "squares"},
        "fingerprint": "f" * 16,
        "backends": "eager",
        "batch": 8,
    }
    return BundleFacts(**(values | changes))


def _pictures() -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Squares whose brightness says the class, blurred by noise; three images a patient."""
    generator = np.random.default_rng(0)
    actual = np.repeat(generator.choice(3, COUNT // 3), 3)
    pixels = generator.integers(0, 120, (COUNT, 1, SIDE, SIDE), dtype=np.uint8)
    pixels[:, :, 8:24, 8:24] += (actual * 25 + generator.integers(0, 30, COUNT)).astype(np.uint8)[
        :, None, None, None
    ]
    return pixels, actual, [f"p{row // 3}" for row in range(COUNT)]


@pytest.fixture(scope="module")
def start() -> Files:
    """The bundle of an untrained network of two other classes."""
    torch.manual_seed(5)
    torch.set_num_threads(1)
    network = build_network(ARCHITECTURE, 2, 1)
    preprocessing = Preprocessing(
        recipe=Recipe(size=SIDE, channels=1).to_dict(), mean=(0.3,), std=(0.2,)
    )
    pixels, actual, groups = _pictures()
    validation = Validation(pixels[:20], (actual[:20] > 0).astype(np.int64), groups[:20])
    facts = _facts("start", classes=("no", "yes"), positive="yes")
    return make_bundle(save_weights(network), preprocessing, facts, validation)


def _rows(count: int) -> pa.Table:
    return pa.table(
        {
            "image_id": [f"{number:032x}" for number in range(count)],
            "uri": [f"archive/{number}.png" for number in range(count)],
            "etag": [f"e{number}" for number in range(count)],
            "frame": pa.array([0] * count, pa.int32()),
        }
    )


def _blobs(pixels: NDArray[np.uint8]) -> list[bytes]:
    return [bytes(cv2.imencode(".png", one[0])[1].tobytes()) for one in pixels]


def _scored(bundle: Files, pixels: NDArray[np.uint8], backend: str) -> NDArray[np.float32]:
    scorer = torch_scorer if backend == TORCH_FP32 else openvino_scorer
    stamp = "2026-11-21T08:00:00+00:00"
    params = {"model_id": parse_config(bundle[CONFIG_FILE]).model_id, "scored_at": stamp}
    function = scorer.load({**params, "backend": backend}, bundle)
    table = function(_rows(len(pixels)), _blobs(pixels)).tables["predictions"]
    return np.array(table["scores"].to_pylist(), np.float32)


@pytest.fixture(scope="module")
def vectors(start: Files) -> NDArray[np.float32]:
    """What `embed` writes of the pictures."""
    embed = embedder.load({"model_id": parse_config(start[CONFIG_FILE]).model_id}, start)
    table = embed(_rows(COUNT), _blobs(_pictures()[0])).tables["embeddings"]
    return np.array(table["vector"].to_pylist(), np.float32)


@pytest.fixture(scope="module")
def parameters(vectors: NDArray[np.float32]) -> SvmParameters:
    _, actual, groups = _pictures()
    return fit_svm(vectors[:60], actual[:60], groups[:60], SETTINGS)


@pytest.fixture(scope="module")
def machine(start: Files, parameters: SvmParameters, vectors: NDArray[np.float32]) -> Files:
    _, actual, groups = _pictures()
    validation = Examined(vectors[60:], actual[60:], groups[60:])
    return svm_bundle(start, parameters, _facts("machine"), validation)


def test_images_are_scored_as_scikit_learn_scores_their_vectors(
    machine: Files, vectors: NDArray[np.float32]
) -> None:
    pixels, actual, groups = _pictures()
    calibrated = CalibratedClassifierCV(
        SVC(C=SETTINGS.c, gamma=SETTINGS.gamma),
        method="sigmoid",
        ensemble=False,
        cv=patient_folds(actual[:60], groups[:60]),
    )
    pipeline = make_pipeline(StandardScaler(), OneVsRestClassifier(calibrated))
    pipeline.fit(vectors[:60].astype(np.float64), actual[:60])
    expected = pipeline.predict_proba(vectors.astype(np.float64))
    scores = _scored(machine, pixels, TORCH_FP32)
    assert np.abs(scores - expected).max() < 1e-5
    assert np.ptp(expected, axis=0).min() > 0.3
    assert macro_auc(actual[60:], scores[60:]) > 0.8


def test_the_bundle_keeps_the_network_and_says_what_it_is(
    start: Files, machine: Files, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    config, before = (parse_config(files[CONFIG_FILE]) for files in (machine, start))
    assert (config.head, config.classes, config.num_classes) == ("svm", CLASSES, 2)
    assert config.preprocessing == before.preprocessing
    assert config.calibration.temperature == 1
    assert config.model_id != before.model_id
    assert config.metrics["val"]["n"] == 30
    assert "support vector machine" in machine[CARD_FILE].decode()
    assert "pretrained=True, num_classes=0)" in machine[CARD_FILE].decode()
    for name, content in machine.items():
        (tmp_path / name).write_bytes(content)
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    pixels = torch.from_numpy(_pictures()[0][:5]).float() / 255
    with torch.inference_mode():
        features = network((pixels - 0.3) / 0.2).numpy()
    assert np.abs(features - vectors[:5]).max() < 1e-5 * np.abs(vectors).max()


def test_figures_of_vectors_are_those_of_pixels(
    start: Files, machine: Files, parameters: SvmParameters
) -> None:
    pixels, actual, groups = _pictures()
    seen = Validation(pixels[60:], actual[60:], groups[60:])
    other = parse_config(svm_bundle(start, parameters, _facts("machine"), seen)[CONFIG_FILE])
    config = parse_config(machine[CONFIG_FILE])
    assert other.model_id == config.model_id
    assert other.metrics["val"].keys() == config.metrics["val"].keys()
    for name, value in config.metrics["val"].items():
        assert other.metrics["val"][name] == pytest.approx(value, abs=1e-4), name


def test_features_of_a_machine_are_those_of_its_network(
    machine: Files, vectors: NDArray[np.float32]
) -> None:
    embed = embedder.load({"model_id": parse_config(machine[CONFIG_FILE]).model_id}, machine)
    table = embed(_rows(6), _blobs(_pictures()[0][:6])).tables["embeddings"]
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors[:6])


def test_outputs_are_log_probabilities(
    parameters: SvmParameters, vectors: NDArray[np.float32]
) -> None:
    outputs = head_outputs(parameters, vectors)
    assert outputs.dtype == np.float32
    assert np.abs(np.exp(outputs).sum(axis=1) - 1).max() < 1e-5


def test_damaged_weights_are_refused(start: Files, parameters: SvmParameters) -> None:
    damaged = {**start, WEIGHTS_FILE: start[WEIGHTS_FILE][:-1] + b"\1"}
    with pytest.raises(BundleError, match="damaged"):
        svm_bundle(damaged, parameters, _facts("machine"), Examined(np.zeros((0, 1)), [], []))  # type: ignore[arg-type]


@pytest.mark.slow
def test_other_engines_compute_the_machine_too(start: Files, parameters: SvmParameters) -> None:
    pixels, actual, groups = _pictures()
    seen = Validation(pixels[60:], actual[60:], groups[60:])
    made = svm_bundle(start, parameters, _facts("machine", backends="measured"), seen)
    config = parse_config(made[CONFIG_FILE])
    assert not config.left_out
    assert config.backends[OPENVINO_FP32].largest_difference < 1e-4
    difference = _scored(made, pixels, OPENVINO_FP32) - _scored(made, pixels, TORCH_FP32)
    assert np.abs(difference).max() < 1e-4
