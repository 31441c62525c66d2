"""Whole trainings of seconds: batches, losses, resuming, freezing, starting, bundling, scoring."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from schemas.bundle import CONFIG_FILE, OPENVINO_FP32, BundleConfig, parse_config
from schemas.errors import BundleError
from tests.workers.detection.pictures import CLASSES, SIDE, config, examples
from tests.workers.training.local_context import DyingContext, Interrupted, LocalContext
from workers.detection.augmentation import BoxAugmentation
from workers.detection.bundling import DetectorFacts
from workers.detection.config import DetectorConfig
from workers.detection.depth import backbone_depth_setter
from workers.detection.examples import MarkedImages, MarkedReader
from workers.detection.feeding import epoch_batches
from workers.detection.finishing import finish_bundle
from workers.detection.fitting import DetectionLoss, fit_detector
from workers.detection.weights import build_detector, take_weights
from workers.models.network import build_network
from workers.scoring import openvino_detector, torch_detector
from workers.training.checkpoint import BEST_FILE, PROGRESS_FILE
from workers.training.config import EVERY_BLOCK
from workers.training.data import ImageCache
from workers.training.feeding import Fitted, Origin, Share
from workers.training.loop import hash_seed

CACHE = 2**26


def fit(made: DetectorConfig, context: LocalContext, origin: Origin | None = None) -> Fitted:
    return fit_detector(
        made, examples(16, 8), context, origin=origin or Origin(), cache_bytes=CACHE
    )


def finished(made: DetectorConfig, fitted: Fitted, folder: Path, **facts: str) -> dict[str, bytes]:
    last = (folder / BEST_FILE).read_bytes(), (folder / PROGRESS_FILE).read_bytes()
    known = DetectorFacts("lesions", {"dataset": "squares"}, "0" * 16, **facts)  # type: ignore[arg-type]
    return finish_bundle(last, fitted.preprocessing, known, made, examples(16, 8))


@pytest.mark.parametrize("family", [pytest.param("centernet", marks=pytest.mark.slow), "yolox"])
def test_a_training_is_bundled_and_scores(family: str, tmp_path: Path) -> None:
    made = replace(config(family), ema_decay=0.9, ema_ramp=4)
    context = LocalContext(tmp_path / "kept")
    fitted = fit(made, context)
    assert len(context.reports) == 2
    assert {"loss", "val_loss", "ap50"} <= set(context.reports[0])
    files = finished(made, fitted, tmp_path / "kept", backends="eager")
    bundle = parse_config(files[CONFIG_FILE])
    assert (bundle.family, bundle.classes) == (family, CLASSES)
    assert bundle.detection is not None
    assert bundle.detection.score_threshold in [round(0.05 * step, 2) for step in range(21)]
    assert bundle.metrics["val"]["n"] == 8
    assert b"lesion" in files["README.md"]
    _check_scores(bundle, files)


def _check_scores(bundle: BundleConfig, files: dict[str, bytes]) -> None:
    """Every image has its row, and detections lie within the original."""
    asked = {"model_id": bundle.model_id, "scored_at": "2026-11-21T00:00:00+00:00"}
    known = examples(16, 8)
    result = torch_detector.load(asked, files)(known.rows, known.fetch(known.rows))
    assert (
        result.tables["predictions"]["image_id"].to_pylist() == known.rows["image_id"].to_pylist()
    )
    sizes = {row["image_id"]: row for row in known.rows.to_pylist()}
    best: dict[str, float] = {}
    for row in result.tables["detections"].to_pylist():
        whole = sizes[row["image_id"]]
        assert row["x"] >= 0
        assert row["y"] >= 0
        assert row["x"] + row["w"] <= whole["width"] + 1e-3
        assert row["y"] + row["h"] <= whole["height"] + 1e-3
        best[row["image_id"]] = max(best.get(row["image_id"], 0), row["score"])
    for row in result.tables["predictions"].to_pylist():
        assert row["score"] == pytest.approx(best.get(row["image_id"], 0))


@pytest.mark.slow
def test_openvino_detects_what_eager_does(tmp_path: Path) -> None:
    made = config("centernet")
    fitted = fit(made, LocalContext(tmp_path / "kept"))
    files = finished(made, fitted, tmp_path / "kept")
    bundle = parse_config(files[CONFIG_FILE])
    assert bundle.backends[OPENVINO_FP32].largest_difference < 1e-3
    asked = {"model_id": bundle.model_id, "scored_at": "2026-11-21T00:00:00+00:00"}
    known = examples(16, 8)
    blobs = known.fetch(known.rows)
    eager = torch_detector.load(asked | {"backend": "torch-fp32"}, files)(known.rows, blobs)
    other = openvino_detector.load(asked | {"backend": OPENVINO_FP32}, files)(known.rows, blobs)
    one, two = (
        np.array(found.tables["predictions"]["scores"].to_pylist()) for found in (eager, other)
    )
    assert np.abs(one - two).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["centernet", "yolox"])
def test_a_killed_training_ends_with_the_same_weights(family: str, tmp_path: Path) -> None:
    made = replace(config(family), ema_decay=0.9)
    whole = fit(made, LocalContext(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(made, DyingContext(tmp_path / "cut", dies_after=1))
    resumed = fit(made, LocalContext(tmp_path / "cut"))
    assert whole.progress.best.keys() == resumed.progress.best.keys()
    for name, tensor in whole.progress.best.items():
        assert torch.equal(tensor, resumed.progress.best[name]), name


@pytest.mark.parametrize("family", ["centernet", "yolox"])
def test_depth_freezes_the_backbone_alone(family: str) -> None:
    network = build_detector(config(family))
    set_depth = backbone_depth_setter(network, [0, 2, EVERY_BLOCK])
    shares = []
    for depth in (0, 2, EVERY_BLOCK):
        network.train()
        set_depth(depth)
        backbone = list(network.get_submodule("backbone").parameters())
        others = [one for name, one in network.named_parameters() if "backbone" not in name]
        assert all(one.requires_grad for one in others)
        shares.append(sum(one.requires_grad for one in backbone) / len(backbone))
        norms = [
            module
            for module in network.get_submodule("backbone").modules()
            if isinstance(module, torch.nn.BatchNorm2d)
        ]
        asleep = sum(not module.training for module in norms)
        assert (asleep == len(norms)) == (depth == 0)
    assert shares[0] == 0
    assert 0 < shares[1] < 1
    assert shares[2] == 1
    with pytest.raises(BundleError, match="fewer blocks"):
        backbone_depth_setter(network, [6])


@pytest.mark.slow
def test_a_frozen_backbone_stays_as_it_was(tmp_path: Path) -> None:
    made = config("centernet", epochs=1)
    made = replace(made, stages=(replace(made.stages[0], unfrozen=0),))
    before = build_detector(made).state_dict()
    after = fit(made, LocalContext(tmp_path / "kept")).progress.best
    for name, tensor in before.items():
        same = torch.equal(tensor, after[f"network.{name}"])
        if name.startswith("backbone."):
            assert same, name
    assert not torch.equal(before["heat.2.weight"], after["network.heat.2.weight"])


def test_weights_of_a_classifier_or_a_detector_are_a_start() -> None:
    made = config("centernet")
    classifier = build_network("test_resnet", 3, 1)
    weights = safetensors.torch.save(dict(classifier.state_dict()))
    network = build_detector(made)
    left = take_weights(network, weights)
    for name, tensor in network.get_submodule("backbone").state_dict().items():
        assert torch.equal(tensor, classifier.state_dict()[name]), name
    assert {name.partition(".")[0] for name in left} == {"neck", "heat", "size", "offset"}
    # A detector of other classes: all but the heat map's last layer is taken.
    other = build_detector(replace(made, classes=("lesion",), seed=7))
    left = take_weights(other, safetensors.torch.save(dict(network.state_dict())))
    assert left == ("heat.2.weight", "heat.2.bias")
    assert torch.equal(
        other.state_dict()["neck.up.0.0.weight"], network.state_dict()["neck.up.0.0.weight"]
    )
    yolox = build_detector(config("yolox"))
    with pytest.raises(BundleError, match="does not fit"):
        take_weights(yolox, safetensors.torch.save(dict(network.state_dict())))


def test_the_last_epochs_show_whole_images_and_add_l1() -> None:
    """Of three epochs the last one has neither mosaic nor mixup, and YOLOX's fourth loss."""
    busy = BoxAugmentation(mosaic=1.0, mixup=1.0, tone=0, flip=False, window=(1, 1), least_share=0)
    made = replace(config("yolox", epochs=3), augmentation=busy)
    known = examples(16, 8)
    reader = MarkedReader(known, made.recipe)
    images = MarkedImages(ImageCache(known.of_part("train"), reader, max_bytes=CACHE), reader)
    share = Share(0, 8, 2)
    whole = list(epoch_batches(made, images, 2, share))
    seen = {one.tobytes() for pixels_NCSS, _ in whole for one in pixels_NCSS.numpy()}
    alone = {one.pixels_CSS.tobytes() for one in images.take(np.arange(16))}
    assert seen == alone
    first = list(epoch_batches(made, images, 0, share))
    mixed = {one.tobytes() for pixels_NCSS, _ in first for one in pixels_NCSS.numpy()}
    assert not mixed & alone
    again = list(epoch_batches(made, images, 0, share))
    assert all(
        torch.equal(a, b)
        for one, two in zip(first, again, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    loss, network = DetectionLoss(made), build_detector(made)
    values = []
    for epoch in (0, 2):
        loss.begin(epoch)
        with torch.no_grad():
            values.append(float(loss(_Floats(network).eval(), whole[0])))
    assert values[1] > values[0]


class _Floats(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(pixels.float() / 255)
        return found


@pytest.mark.parametrize("family", ["centernet", "yolox"])
def test_batches_without_any_box_are_learned_from(family: str) -> None:
    made = config(family)
    loss, network = DetectionLoss(made), build_detector(made)
    torch.manual_seed(hash_seed(1))
    pixels_NCSS = torch.randint(0, 255, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    found = loss(_Floats(network), (pixels_NCSS, torch.zeros(2, 0, 6)))
    found.backward()
    assert torch.isfinite(found)
    assert found > 0
    # Ranks wait for the gradient of every weight, those of boxes included.
    assert all(one.grad is not None for one in network.parameters())


@pytest.mark.parametrize("family", ["centernet", "yolox"])
def test_losses_stay_in_float32_where_the_network_computes_in_less(family: str) -> None:
    made = config(family)
    known = examples(8, 0, every_empty=100)
    reader = MarkedReader(known, made.recipe)
    images = MarkedImages(ImageCache(np.arange(8), reader, max_bytes=CACHE), reader)
    (batch,) = epoch_batches(made, images, 0, Share(0, 8, 1))
    loss, network = DetectionLoss(made), _Floats(build_detector(made)).train()
    full = loss(network, batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(network, batch)
    assert found.dtype == torch.float32
    assert found.detach().item() == pytest.approx(full.detach().item(), rel=0.05)


def test_boxes_come_along_to_the_networks_pixels() -> None:
    """The bright square of every picture lies where its box says, after the letterbox."""
    known = examples(8, 0, every_empty=100)
    reader = MarkedReader(known, {"size": SIDE, "channels": 1}, threads=2)
    pixels_NCSS = np.stack(reader(np.arange(8)))  # type: ignore[arg-type]
    for row, pixels_CSS in enumerate(pixels_NCSS):
        boxes = reader.boxes(row)
        assert boxes.categories_B.tolist() == ([0, 1] if row else [])
        for corners in boxes.corners_B4[boxes.categories_B == 0]:
            y, x = np.nonzero(pixels_CSS[0] > 180)
            seen = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
            assert np.abs(corners - seen).max() <= 1


def test_settings_survive_their_way_as_json() -> None:
    made = replace(config("yolox"), augmentation=BoxAugmentation(window=(0.7, 1.0)))
    assert DetectorConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    with pytest.raises(TypeError):
        DetectorConfig.from_dict(made.to_dict() | {"colour": 1})


def test_damaged_weights_are_told() -> None:
    with pytest.raises(BundleError, match="no safetensors"):
        take_weights(build_detector(config("centernet")), b"nothing")
