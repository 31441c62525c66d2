"""Making the bundle of a trained classifier: calibration, threshold, backends, metrics, card."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from schemas.bundle import (
    CARD_FILE,
    CONFIG_FILE,
    TORCH_CUDA_FP32,
    TORCH_FP32,
    WEIGHTS_FILE,
    BundleConfig,
    Calibration,
    Head,
    OperatingPoint,
    Preprocessing,
    digest,
    make_model_id,
)
from workers.metrics.calibration import fit_temperature, negative_log_likelihood
from workers.metrics.classification import Scored, classification_figures
from workers.metrics.thresholds import Rule, choose_point
from workers.models.classifier.backends import Choice, choose_backends
from workers.models.classifier.card import model_card
from workers.models.classifier.heads import trained_outputs, whole_network
from workers.models.classifier.outputs import probabilities
from workers.models.export import openvino_files
from workers.models.network import build_network, timm_description
from workers.scoring.candidates import candidates, eager
from workers.scoring.measure import Judge


@dataclass(frozen=True)
class Validation:
    """The validation images, decoded, with what is known of them."""

    pixels_NCHW: NDArray[np.uint8]
    actual_N: NDArray[np.int64]
    groups: list[str]
    """Each image's patient."""
    outputs_NC: NDArray[np.float32] | None = None
    """The whole network's outputs, where they are known without the pixels."""


@dataclass(frozen=True)
class BundleFacts:
    """What a bundle says beside its network."""

    name: str
    architecture: str
    classes: tuple[str, ...]
    positive: str | None
    """The class an operating point cuts; None makes none."""
    rule: Rule
    data: Mapping[str, Any]
    fingerprint: str
    training: Mapping[str, Any] = field(default_factory=dict)
    """Epochs, best epoch, history and settings, for the card and the configuration."""
    head: Head = "softmax"
    num_classes: int | None = None
    """Outputs of timm's network where they do not follow from head and classes."""
    calibrate: bool = True
    """Fit a temperature on the validation images."""
    backends: Literal["measured", "eager"] = "measured"
    """Offer every backend there is, measured, or eager float32 alone."""
    batch: int = 16
    """Images per pass on a CPU; more gain nothing there (32 and 64 were measured)."""
    gpu_batch: int = 256
    """Images per pass on a GPU."""


def make_bundle(
    weights: bytes, preprocessing: Preprocessing, facts: BundleFacts, validation: Validation
) -> dict[str, bytes]:
    """The files of a classifier's bundle by name.

    ``weights`` is the safetensors file of the network and its head. The temperature, the operating
    point, and which backend scores on each device are decided on the validation images, one after
    the other.
    """
    outputs = facts.num_classes
    if outputs is None:
        outputs = trained_outputs(facts.head, len(facts.classes))
    network = build_network(facts.architecture, outputs, preprocessing.channels)
    whole = whole_network(network, weights, facts.head, preprocessing).eval()
    size_px = preprocessing.size_px
    files = {WEIGHTS_FILE: weights}
    if facts.backends == "measured":
        files |= openvino_files(whole, preprocessing.channels, size_px)
    decided = _decide(whole, files, facts, validation)
    config = BundleConfig(
        architecture=facts.architecture,
        num_classes=outputs,
        label_names=facts.classes,
        model_args={"in_chans": preprocessing.channels},
        pretrained_cfg=timm_description(network, size_px, preprocessing.mean, preprocessing.std),
        model_id=make_model_id(
            weights,
            facts.architecture,
            facts.classes,
            preprocessing,
            decided.calibration,
            facts.head,
        ),
        name=facts.name,
        family="classifier",
        classes=facts.classes,
        head=facts.head,
        preprocessing=preprocessing,
        calibration=decided.calibration,
        operating_point=decided.point,
        backend=decided.choice.backend,
        backends=dict(decided.choice.figures),
        batch=facts.batch,
        gpu_backend=decided.choice.gpu_backend,
        gpu_batch=facts.gpu_batch,
        left_out=dict(decided.choice.left_out),
        metrics={**decided.metrics, "training": dict(facts.training)},
        data=dict(facts.data),
        fingerprint=facts.fingerprint,
        files={name: digest(content) for name, content in files.items()},
    )
    files[CARD_FILE] = model_card(config).encode()
    return {CONFIG_FILE: config.to_json()} | files


@dataclass(frozen=True)
class _Decided:
    """What the validation images decide of a bundle."""

    calibration: Calibration
    point: OperatingPoint | None
    choice: Choice
    metrics: Mapping[str, Any]


def _decide(
    whole: nn.Module, files: Mapping[str, bytes], facts: BundleFacts, validation: Validation
) -> _Decided:
    actual_N, outputs_NC = validation.actual_N, validation.outputs_NC
    if outputs_NC is None:
        outputs_NC = eager(whole, facts.batch).outputs(validation.pixels_NCHW)
    calibration, metrics = _calibrate(facts, outputs_NC, actual_N)
    scores_NC = probabilities(outputs_NC, calibration.temperature)
    point = _point(facts, actual_N, scores_NC)
    choice = Choice(TORCH_FP32, TORCH_CUDA_FP32, figures={}, left_out={})
    if facts.backends == "measured":
        choice = choose_backends(
            candidates(whole, files, facts.batch, facts.gpu_batch),
            validation.pixels_NCHW,
            scores_NC,
            Judge(facts.classes, calibration.temperature, point),
        )
    scored = Scored(facts.classes, actual_N, scores_NC, validation.groups)
    return _Decided(calibration, point, choice, {"val": _figures(scored, point), **metrics})


def _calibrate(
    facts: BundleFacts, outputs_NC: NDArray[np.float32], actual_N: NDArray[np.int64]
) -> tuple[Calibration, dict[str, Any]]:
    """The temperature, and how likely it makes the validation part."""
    if not facts.calibrate:
        return Calibration(), {}
    temperature = fit_temperature(outputs_NC, actual_N)
    likelihoods = {
        "nll_before": round(negative_log_likelihood(outputs_NC, actual_N), 6),
        "nll_after": round(negative_log_likelihood(outputs_NC, actual_N, temperature), 6),
    }
    return Calibration(temperature=temperature), {"calibration": likelihoods}


def _point(
    facts: BundleFacts, actual_N: NDArray[np.int64], scores_NC: NDArray[np.float32]
) -> OperatingPoint | None:
    if facts.positive is None or len(facts.classes) != 2 or len(set(actual_N.tolist())) < 2:
        return None
    return choose_point(actual_N, scores_NC, facts.classes, facts.positive, facts.rule)


def _figures(scored: Scored, point: OperatingPoint | None) -> dict[str, Any]:
    figures = classification_figures(scored, point, resamples=1000, seed=0)
    kept: dict[str, Any] = {"n": len(scored)}
    for one in figures:
        key = one.metric if one.category is None else f"{one.metric} {one.category}"
        kept[key] = round(one.value, 6)
        if one.interval is not None and one.category is None:
            kept[f"{key} 95%"] = [round(end, 6) for end in one.interval]
    return kept
