"""Making the bundle of a trained classifier: threshold, backends, metrics, card."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from schemas.bundle import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    BundleConfig,
    Calibration,
    OperatingPoint,
    Preprocessing,
    digest,
    make_model_id,
)
from workers.metrics.classification import Scored, classification_figures
from workers.metrics.thresholds import Rule, choose_point
from workers.models.classifier.backends import candidates, choose_backends, eager
from workers.models.classifier.card import model_card
from workers.models.classifier.network import (
    build_network,
    load_weights,
    save_weights,
    timm_description,
)
from workers.models.classifier.outputs import probabilities
from workers.models.export import openvino_files
from workers.models.normalise import Normalised
from workers.scoring.measure import Judge


@dataclass(frozen=True)
class Validation:
    """The validation images, decoded, with what is known of them."""

    pixels_NCHW: NDArray[np.uint8]
    actual_N: NDArray[np.int64]
    groups: list[str]
    """Each image's patient."""


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
    batch: int = 16
    """Images per pass on a CPU; more gain nothing there (32 and 64 were measured)."""
    gpu_batch: int = 256
    """Images per pass on a GPU."""


def inner_state(best: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own state out of that of a `Normalised` network."""
    return {name.removeprefix("network."): tensor for name, tensor in best.items()}


def make_bundle(
    weights: bytes, preprocessing: Preprocessing, facts: BundleFacts, validation: Validation
) -> dict[str, bytes]:
    """The files of a classifier's bundle by name.

    ``weights`` is the safetensors file of the network. The operating point, and which backend
    scores on each device, are decided on the validation images.
    """
    network = build_network(facts.architecture, len(facts.classes), preprocessing.channels)
    load_weights(network, weights)
    whole = Normalised(network, preprocessing.mean, preprocessing.std).eval()
    size_px = int(validation.pixels_NCHW.shape[-1])
    files = {WEIGHTS_FILE: save_weights(network)}
    files |= openvino_files(whole, preprocessing.channels, size_px)
    calibration = Calibration()
    outputs_NC = eager(whole, facts.batch).outputs(validation.pixels_NCHW)
    scores_NC = probabilities(outputs_NC, calibration.temperature)
    point = _point(facts, validation.actual_N, scores_NC)
    choice = choose_backends(
        candidates(whole, files, facts.batch, facts.gpu_batch),
        validation.pixels_NCHW,
        scores_NC,
        Judge(facts.classes, calibration.temperature, point),
    )
    scored = Scored(facts.classes, validation.actual_N, scores_NC, validation.groups)
    config = BundleConfig(
        architecture=facts.architecture,
        num_classes=len(facts.classes),
        label_names=facts.classes,
        model_args={"in_chans": preprocessing.channels},
        pretrained_cfg=timm_description(network, size_px, preprocessing.mean, preprocessing.std),
        model_id=make_model_id(
            files[WEIGHTS_FILE], facts.architecture, facts.classes, preprocessing, calibration
        ),
        name=facts.name,
        family="classifier",
        classes=facts.classes,
        preprocessing=preprocessing,
        calibration=calibration,
        operating_point=point,
        backend=choice.backend,
        backends=dict(choice.figures),
        batch=facts.batch,
        gpu_backend=choice.gpu_backend,
        gpu_batch=facts.gpu_batch,
        left_out=dict(choice.left_out),
        metrics={"val": _figures(scored, point), "training": dict(facts.training)},
        data=dict(facts.data),
        fingerprint=facts.fingerprint,
        files={name: digest(content) for name, content in files.items()},
    )
    files[CARD_FILE] = model_card(config).encode()
    return {CONFIG_FILE: config.to_json()} | files


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
