"""Bundles: identity, configuration, damage."""

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from schemas.bundle import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    BundleConfig,
    Calibration,
    OperatingPoint,
    Preprocessing,
    check_files,
    digest,
    make_model_id,
    parse_config,
    weights_digest,
)
from schemas.errors import BundleError

PREPROCESSING = Preprocessing(recipe={"size": 32, "channels": 1}, mean=(0.5,), std=(0.25,))
TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float32)}


def _config(**changes: Any) -> BundleConfig:
    values: dict[str, Any] = {
        "architecture": "resnet18",
        "num_classes": 2,
        "model_id": "0123456789abcdef",
        "name": "lungs",
        "family": "classifier",
        "classes": ("no", "yes"),
        "preprocessing": PREPROCESSING,
        "operating_point": OperatingPoint(positive="yes", threshold=0.3, rule="youden"),
    }
    return BundleConfig(**(values | changes))


def _model_id(**changes: Any) -> str:
    values: dict[str, Any] = {
        "weights": safetensors.numpy.save(TENSORS),
        "architecture": "resnet18",
        "classes": ("no", "yes"),
        "preprocessing": PREPROCESSING,
        "calibration": Calibration(),
    }
    return make_model_id(**(values | changes))


def test_config_survives_its_file() -> None:
    config = _config()
    assert parse_config(config.to_json()) == config


def test_weights_digest_ignores_order_and_metadata_but_no_bit() -> None:
    one = safetensors.numpy.save(TENSORS)
    turned = dict(reversed(TENSORS.items()))
    assert weights_digest(one) == weights_digest(safetensors.numpy.save(turned, {"by": "me"}))
    changed = {**TENSORS, "b": np.nextafter(TENSORS["b"], 2, dtype=np.float32)}
    assert weights_digest(one) != weights_digest(safetensors.numpy.save(changed))
    renamed = {"a.weight": TENSORS["a.weight"], "c": TENSORS["b"]}
    assert weights_digest(one) != weights_digest(safetensors.numpy.save(renamed))
    reshaped = {**TENSORS, "a.weight": TENSORS["a.weight"].reshape(3, 2)}
    assert weights_digest(one) != weights_digest(safetensors.numpy.save(reshaped))


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": safetensors.numpy.save({"b": np.zeros(3, np.float32)})},
        {"architecture": "resnet34"},
        {"classes": ("yes", "no")},
        {"preprocessing": PREPROCESSING.model_copy(update={"mean": (0.4,)})},
        {"preprocessing": PREPROCESSING.model_copy(update={"recipe": {"size": 64, "channels": 1}})},
        {"calibration": Calibration(temperature=1.5)},
        {"head": "corn"},
    ],
)
def test_model_id_follows_what_scores_depend_on(changes: dict[str, Any]) -> None:
    assert _model_id() == _model_id()
    assert len(_model_id()) == 16
    assert _model_id(**changes) != _model_id()


def test_model_ids_of_softmax_bundles_stay_as_they_were() -> None:
    # Computed before there were other heads: lakes hold predictions under such ids.
    assert _model_id() == "e162db9309209cb4"


def test_damaged_and_missing_files_are_named() -> None:
    files = {WEIGHTS_FILE: b"weights"}
    config = _config(files={WEIGHTS_FILE: digest(b"weights")})
    check_files(config, files, (WEIGHTS_FILE,))
    with pytest.raises(BundleError, match=r"damaged \(lungs: model.safetensors\)"):
        check_files(config, {WEIGHTS_FILE: b"weightz"}, (WEIGHTS_FILE,))
    with pytest.raises(BundleError, match=r"missing \(lungs: openvino.xml\)"):
        check_files(config, files, ("openvino.xml",))


def test_what_is_no_configuration_is_refused() -> None:
    with pytest.raises(BundleError, match="no JSON"):
        parse_config(b"\xff\xfe")
    with pytest.raises(BundleError, match=r"another format.*got None"):
        parse_config(b"{}", CONFIG_FILE)
    with pytest.raises(BundleError, match=r"another format.*got 99.*reads format 1"):
        parse_config(json.dumps({"format": 99}).encode())
    broken = json.loads(_config().to_json()) | {"calibration": {"temperature": 0}}
    with pytest.raises(BundleError, match=r"calibration.temperature.*greater than 0"):
        parse_config(json.dumps(broken).encode())
