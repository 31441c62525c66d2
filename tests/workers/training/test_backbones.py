"""The networks that the studies name: trained, kept as bundles, read again, equal to the bit."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from schemas.bundle import CONFIG_FILE, TORCH_FP32, parse_config
from tests.workers.models.backbones import BACKBONES
from tests.workers.training.local_context import LocalContext
from workers.models.classifier.bundling import BundleFacts
from workers.models.classifier.finishing import finish_bundle, read_validation
from workers.models.classifier.fitting import fit_classifier
from workers.models.classifier.outputs import probabilities
from workers.models.network import build_network
from workers.models.normalise import Normalised
from workers.scoring import torch_scorer
from workers.scoring.candidates import eager
from workers.training.checkpoint import BEST_FILE, PROGRESS_FILE
from workers.training.config import Stage, TrainConfig
from workers.training.examples import Examples
from workers.training.feeding import Origin

QUICK = ("resnet10t", "efficientnet_b0", "mobilenetv2_100", "densenet121")
"""One of each family but VGG, most of whose 134 million weights stand in one layer."""

MakeExamples = Callable[[int, int], Examples]


@pytest.mark.parametrize(
    "architecture",
    [
        # A VGG's bundle and checkpoints are files of half a gigabyte each.
        one
        if one in QUICK
        else pytest.param(one, marks=[pytest.mark.slow, pytest.mark.timeout(900)])
        for one in BACKBONES
    ],
)
def test_a_backbone_trains_and_its_bundle_scores_alike(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig, architecture: str
) -> None:
    _train_and_read_again(tmp_path, make_examples, config, architecture)


def test_a_narrow_vgg_trains_and_its_bundle_scores_alike(
    tmp_path: Path,
    make_examples: MakeExamples,
    config: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All layers of a VGG, 64 channels in place of 4,096 between the first two connected ones."""
    whole = timm.models.vgg.ConvMlp
    monkeypatch.setattr(
        timm.models.vgg,
        "ConvMlp",
        lambda *sizes, mlp_ratio, **rest: whole(*sizes, mlp_ratio=1 / 64, **rest),
    )
    _train_and_read_again(tmp_path, make_examples, config, "vgg16")


def _train_and_read_again(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig, architecture: str
) -> None:
    torch.set_num_threads(1)
    small = replace(
        config,
        architecture=architecture,
        stages=(Stage(1, 1, 1e-3), Stage(1, learning_rate=1e-4)),
        batch=8,
    )
    examples = make_examples(16, 12)
    kept = tmp_path / "kept"
    fitted = fit_classifier(small, examples, LocalContext(kept), origin=Origin(), cache_bytes=2**24)
    assert all(np.isfinite(epoch["loss"]) for epoch in fitted.progress.history)
    facts = BundleFacts(
        name="squares",
        architecture=architecture,
        classes=small.classes,
        positive="bright",
        rule="youden",
        data={},
        fingerprint="f" * 16,
        backends="eager",
    )
    checkpoint = (kept / BEST_FILE).read_bytes(), (kept / PROGRESS_FILE).read_bytes()
    files = finish_bundle(checkpoint, fitted.preprocessing, facts, small, examples)
    described = parse_config(files[CONFIG_FILE])

    live = Normalised(
        build_network(architecture, 2, 1), fitted.preprocessing.mean, fitted.preprocessing.std
    ).eval()
    live.load_state_dict(fitted.progress.best)
    pixels_NCHW = read_validation(small.recipe, small.classes, examples).pixels_NCHW
    outputs_NC = eager(live, described.batch).outputs(pixels_NCHW)

    params = {
        "model_id": described.model_id,
        "scored_at": "2026-11-21T08:00:00+00:00",
        "backend": TORCH_FP32,
    }
    rows = examples.rows.take(examples.of_part("val"))
    scored = torch_scorer.load(params, files)(rows, examples.fetch(rows))
    scores_NC = np.array(scored.tables["predictions"]["scores"].to_pylist(), np.float32)
    assert np.array_equal(scores_NC, probabilities(outputs_NC, described.calibration.temperature))
    assert len(np.unique(outputs_NC[:, 0])) > 6

    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    opened = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert json.loads(files[CONFIG_FILE])["architecture"] == architecture
    whole = Normalised(opened, opened.pretrained_cfg["mean"], opened.pretrained_cfg["std"]).eval()
    assert np.array_equal(eager(whole, described.batch).outputs(pixels_NCHW), outputs_NC)
