"""What a finished bundle holds, and that others can open it."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import timm
import torch

from schemas.bundle import (
    BACKENDS,
    CARD_FILE,
    CONFIG_FILE,
    OPENVINO_FILES,
    OPENVINO_FP32,
    OPENVINO_MIXED_FILES,
    TORCH_CUDA_FP32,
    WEIGHTS_FILE,
    check_files,
    make_model_id,
    parse_config,
)
from workers.models.classifier.card import model_card


def test_bundle_is_whole(bundle: Mapping[str, bytes]) -> None:
    needed = {WEIGHTS_FILE, *OPENVINO_FILES, *OPENVINO_MIXED_FILES}
    assert set(bundle) == {CONFIG_FILE, CARD_FILE, *needed}
    config = parse_config(bundle[CONFIG_FILE])
    check_files(config, bundle, tuple(needed))
    assert config.model_id == make_model_id(
        bundle[WEIGHTS_FILE],
        config.architecture,
        config.classes,
        config.preprocessing,
        config.calibration,
    )
    on_cpu = {name for name, one in BACKENDS.items() if one.device == "cpu"}
    assert {name for name in config.backends if BACKENDS[name].device == "cpu"} == on_cpu
    assert not config.left_out
    assert config.backends[OPENVINO_FP32].largest_difference < 1e-5
    assert config.operating_point is not None
    assert 0 < config.operating_point.threshold < 1
    assert config.metrics["val"]["n"] == 40


def test_timm_opens_the_bundle(bundle: Mapping[str, bytes], tmp_path: Path) -> None:
    for name, content in bundle.items():
        (tmp_path / name).write_bytes(content)
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    weights = safetensors.torch.load(bundle[WEIGHTS_FILE])
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert network.pretrained_cfg["input_size"] == (1, 48, 48)
    assert network.pretrained_cfg["mean"] == [0.5]
    assert network.pretrained_cfg["label_names"] == ["no", "yes"]


def test_card_tells_data_figures_and_backends(bundle: Mapping[str, bytes]) -> None:
    card = bundle[CARD_FILE].decode()
    config = parse_config(bundle[CONFIG_FILE])
    assert config.model_id in card
    assert "- train: no 3, yes 4" in card
    assert f"| {config.backend} (chosen) |" in card
    assert "| confusion no labelled yes |" in card
    assert "leaks" not in card
    unmeasured = f"a GPU scores with {TORCH_CUDA_FP32}"
    assert (unmeasured in card) == (config.gpu_backend not in config.backends)
    poorer = config.model_copy(update={"left_out": {"openvino-bf16": "RuntimeError: no room"}})
    assert "openvino-bf16 could not compute this network: RuntimeError: no room" in model_card(
        poorer
    )
    leaking = config.model_copy(update={"data": {"leaks_allowed": {"patients": 3}}})
    assert "**The split leaks**" in model_card(leaking)
    assert "- leaks allowed: patients 3" in model_card(leaking)


def test_operating_point_does_not_enter_the_identity(bundle: Mapping[str, bytes]) -> None:
    config = parse_config(bundle[CONFIG_FILE])
    assert config.operating_point is not None
    point = config.operating_point.model_copy(update={"threshold": 0.9})
    moved = config.model_copy(update={"operating_point": point})
    assert parse_config(moved.to_json()).model_id == config.model_id
