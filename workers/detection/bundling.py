"""Making the bundle of a trained detector: operating point, backends, figures, card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from schemas.bundle import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    BundleConfig,
    DetectionSettings,
    Preprocessing,
    digest,
    make_detector_id,
)
from workers.detection.average_precision import average_precision, judge
from workers.detection.backends import Choice, choose_backends
from workers.detection.boxes import Boxes, Detections
from workers.detection.card import detector_card
from workers.detection.config import DetectorConfig
from workers.detection.families import family_of
from workers.detection.maps import FlatMaps, Reading, count_boxes, map_shapes, to_original
from workers.detection.matching import (
    MIN_OVERLAP,
    Outcomes,
    choose_threshold,
    confusion,
    join,
    match,
    rates,
)
from workers.models.export import openvino_files
from workers.models.network import load_weights
from workers.models.normalise import Normalised
from workers.pixels.recipe import Geometry
from workers.scoring.candidates import candidates, eager


@dataclass(frozen=True)
class Validation:
    """The validation images, decoded, with what is marked in them."""

    pixels_NCSS: NDArray[np.uint8]
    boxes: Sequence[Boxes]
    """In px of the originals."""
    geometries: Sequence[Geometry]
    sizes: Sequence[tuple[int, int] | None]
    """Width and height of the originals, px."""


@dataclass(frozen=True)
class DetectorFacts:
    """What a detector's bundle says beside its network."""

    name: str
    data: Mapping[str, Any]
    fingerprint: str
    training: Mapping[str, Any] = field(default_factory=dict)
    """Epochs, best epoch, history and settings, for the card and the configuration."""
    backends: Literal["measured", "eager"] = "measured"
    """Offer every backend there is, measured, or eager float32 alone."""
    batch: int = 8
    """Images per pass on a CPU."""
    gpu_batch: int = 64
    """Images per pass on a GPU."""


def make_bundle(
    weights: bytes,
    preprocessing: Preprocessing,
    facts: DetectorFacts,
    config: DetectorConfig,
    validation: Validation,
) -> dict[str, bytes]:
    """The files of a detector's bundle by name.

    ``weights`` is the safetensors file of its network. The operating point is chosen on the
    validation images in px of the originals, as an evaluation judges them; then backends are
    measured on a sample of them.
    """
    whole, reading = open_network(config, weights, preprocessing)
    found = _detect(whole, reading, facts.batch, validation)
    settings, figures = _decide(found, validation, reading.settings, config.classes)
    files = {WEIGHTS_FILE: weights}
    choice = Choice()
    if facts.backends == "measured":
        files |= openvino_files(whole, preprocessing.channels, preprocessing.size_px)
        offered = candidates(whole, files, facts.batch, facts.gpu_batch)
        chosen = Reading(reading.family, settings)
        choice = choose_backends(offered, validation.pixels_NCSS, chosen)
    bundle = BundleConfig(
        architecture=config.architecture,
        num_classes=len(config.classes),
        label_names=config.classes,
        model_args={"in_chans": preprocessing.channels, **config.network},
        model_id=make_detector_id(
            weights, config.architecture, config.classes, preprocessing, settings
        ),
        name=facts.name,
        family=config.family,
        classes=config.classes,
        preprocessing=preprocessing,
        detection=settings,
        backend=choice.backend,
        backends=dict(choice.figures),
        batch=facts.batch,
        gpu_backend=choice.gpu_backend,
        gpu_batch=facts.gpu_batch,
        left_out=dict(choice.left_out),
        metrics={"val": figures, "training": dict(facts.training)},
        data=dict(facts.data),
        fingerprint=facts.fingerprint,
        files={name: digest(content) for name, content in files.items()},
    )
    files[CARD_FILE] = detector_card(bundle, settings).encode()
    return {CONFIG_FILE: bundle.to_json()} | files


def open_network(
    config: DetectorConfig, weights: bytes, preprocessing: Preprocessing
) -> tuple[nn.Module, Reading]:
    """The whole network from uint8 pixels to flat maps, and how to read these.

    Raises:
        BundleError: when there is no such architecture, or the weights do not fit.
    """
    family = family_of(config.family)
    channels = preprocessing.channels
    network = family.build(config.architecture, len(config.classes), channels, config.network)
    load_weights(network, weights)
    shapes = map_shapes(network, channels, preprocessing.size_px)
    settings = DetectionSettings(
        score_threshold=0,
        match_iou=MIN_OVERLAP,
        limit=config.limit,
        least_score=config.least_score,
        one_class=config.one_class,
        maps=shapes,
    )
    whole = Normalised(FlatMaps(network), preprocessing.mean, preprocessing.std)
    return whole.eval(), Reading(family, settings)


def _detect(
    whole: nn.Module, reading: Reading, batch: int, validation: Validation
) -> list[Detections]:
    """What eager float32 detects, in px of the originals."""
    found = reading.read(eager(whole, batch), validation.pixels_NCSS)
    return [
        to_original(one, geometry, size)
        for one, geometry, size in zip(found, validation.geometries, validation.sizes, strict=True)
    ]


def _decide(
    found: Sequence[Detections],
    validation: Validation,
    settings: DetectionSettings,
    classes: Sequence[str],
) -> tuple[DetectionSettings, dict[str, Any]]:
    """The settings with the operating point, and the figures there."""
    pairs = list(zip(found, validation.boxes, strict=True))
    outcomes = join(match(one, boxes) for one, boxes in pairs)
    threshold, macro_f1 = choose_threshold(outcomes, len(classes))
    counts_K = count_boxes(validation.boxes, len(classes))
    figures: dict[str, Any] = {"n": len(pairs), "boxes": int(counts_K.sum())}
    if counts_K.sum():
        rows_R3 = np.concatenate([judge(one, boxes) for one, boxes in pairs])
        figures["ap50"] = round(average_precision(rows_R3, counts_K), 6)
    figures["macro f1"] = round(macro_f1, 6)
    chosen = settings.model_copy(update={"score_threshold": threshold})
    return chosen, figures | _by_class(outcomes, classes, threshold)


def _by_class(outcomes: Outcomes, classes: Sequence[str], threshold: float) -> dict[str, Any]:
    matrix = confusion(outcomes, len(classes), threshold)
    found: dict[str, Any] = {
        "over-detections": int(matrix[0].sum()),
        "misses": int(matrix[1:, 0].sum()),
    }
    for name, one in zip(classes, rates(matrix), strict=True):
        found |= {f"{figure} {name}": round(value, 6) for figure, value in one._asdict().items()}
    return found
