"""From a finished pre-training's last checkpoint to the files of its bundle."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.bundle import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    BundleConfig,
    Calibration,
    Preprocessing,
    digest,
    make_model_id,
)
from schemas.errors import RejectedImage
from workers.metrics.knn import compare_predictions, nearest_class
from workers.models.network import build_network, load_weights, timm_description
from workers.models.normalise import Normalised
from workers.models.simsiam.card import pretraining_card
from workers.models.simsiam.config import ProbeSettings, SimSiamConfig
from workers.models.simsiam.fitting import build_simsiam, targets_of
from workers.models.simsiam.network import COLLAPSED
from workers.models.simsiam.watching import MOST_PROBED, UNKNOWN
from workers.training.data import Image, read_in_order
from workers.training.examples import Examples
from workers.training.finishing import training_facts

FAMILY = "simsiam"
_BACKBONE = "backbone.network."
_BATCH = 16
_FIGURES = ("loss", "val_loss", "spread", "val_spread", "feature_spread")

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class BackboneFacts:
    """What a bundle says beside its network."""

    name: str
    data: Mapping[str, Any]
    fingerprint: str
    training: Mapping[str, Any] = field(default_factory=dict)
    """Epochs, best epoch, history and settings, for the card and the configuration."""


def finish_bundle(
    checkpoint: tuple[bytes, bytes],
    preprocessing: Preprocessing,
    facts: BackboneFacts,
    config: SimSiamConfig,
    examples: Examples,
) -> dict[str, bytes]:
    """The bundle of the kept epoch; ``checkpoint`` is its weights and the progress as JSON.

    It holds the backbone alone, under timm's names. Projector and predictor have served.
    """
    best, told = checkpoint
    progress: Mapping[str, Any] = json.loads(told)
    state = {
        name.removeprefix(_BACKBONE): tensor
        for name, tensor in safetensors.torch.load(best).items()
        if name.startswith(_BACKBONE)
    }
    weights = safetensors.torch.save(state)
    network = build_network(config.architecture, 0, preprocessing.channels)
    load_weights(network, weights)
    figures = _figures(progress["history"], progress["best_epoch"])
    if config.probe is not None:
        figures |= _probe(network, preprocessing, config, config.probe, examples)
    size_px = preprocessing.size_px
    bundle = BundleConfig(
        architecture=config.architecture,
        num_classes=0,
        model_args={"in_chans": preprocessing.channels},
        pretrained_cfg=timm_description(network, size_px, preprocessing.mean, preprocessing.std),
        model_id=make_model_id(weights, config.architecture, (), preprocessing, Calibration()),
        name=facts.name,
        family=FAMILY,
        classes=(),
        preprocessing=preprocessing,
        batch=_BATCH,
        metrics={
            "val": figures,
            "training": {**facts.training, **training_facts(progress, config.to_dict())},
        },
        data=dict(facts.data),
        fingerprint=facts.fingerprint,
        files={WEIGHTS_FILE: digest(weights)},
    )
    card = pretraining_card(bundle).encode()
    return {CONFIG_FILE: bundle.to_json(), WEIGHTS_FILE: weights, CARD_FILE: card}


def _figures(history: list[dict[str, float]], kept: int) -> dict[str, Any]:
    """Those of the kept epoch, and whether the training ended in a collapse."""
    found: dict[str, Any] = {name: round(history[kept][name], 6) for name in _FIGURES}
    found["spread_at_end"] = round(history[-1]["spread"], 6)
    found["collapsed"] = history[-1]["spread"] < COLLAPSED
    return found


def _probe(
    network: nn.Module,
    preprocessing: Preprocessing,
    config: SimSiamConfig,
    probe: ProbeSettings,
    examples: Examples,
) -> dict[str, Any]:
    """What nearest neighbours tell by the features learned, and by those of random weights.

    The random weights are those that the training's seed gives a fresh network.
    """
    random = build_simsiam(replace(config, start="none")).backbone
    whole = {
        name: Normalised(one, preprocessing.mean, preprocessing.std).eval()
        for name, one in (("probe", network), ("probe_random", random))
    }
    targets_R = targets_of(examples, probe)
    known = _embed(whole, config, examples, _labelled("train", targets_R, examples))
    asked = _embed(whole, config, examples, _labelled("val", targets_R, examples))
    if not known.rows or not asked.rows:
        return {}
    actual_N = targets_R[asked.rows]
    predicted = {
        name: nearest_class(
            known.vectors[name], targets_R[known.rows], asked.vectors[name], probe.neighbours
        )
        for name in whole
    }
    groups = examples.rows.column("group").to_pylist()
    compared = compare_predictions(actual_N, predicted, [groups[row] for row in asked.rows])
    most = np.bincount(actual_N).max() / len(actual_N)
    counts = {"probe_n": len(actual_N), "probe_known": len(known.rows)}
    return {**counts, "probe_commonest": round(float(most), 6), **compared}


@dataclass(frozen=True)
class _Embedded:
    rows: list[int]
    vectors: Mapping[str, Vectors]
    """By network, in the order of ``rows``."""


def _labelled(part: str, targets_R: NDArray[np.int64], examples: Examples) -> NDArray[np.int64]:
    """Rows of a part with a class; of too many, some evenly spread over them."""
    rows = examples.of_part(part)
    rows = rows[targets_R[rows] != UNKNOWN]
    if len(rows) > MOST_PROBED:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_PROBED, dtype=np.int64)]
    labelled: NDArray[np.int64] = rows
    return labelled


@torch.inference_mode()
def _embed(
    networks: Mapping[str, nn.Module],
    config: SimSiamConfig,
    examples: Examples,
    rows: NDArray[np.int64],
) -> _Embedded:
    """The features of some rows by each network; images that can't be read are left out."""
    found: dict[str, list[Vectors]] = {name: [] for name in networks}
    usable: list[int] = []
    for images, own in _batches(config, examples, rows):
        pixels_NCSS = torch.from_numpy(np.stack(images))
        usable += own
        for name, network in networks.items():
            features_ND: Tensor = network(pixels_NCSS)
            found[name].append(features_ND.numpy())
    return _Embedded(usable, {name: np.concatenate(one) for name, one in found.items() if one})


def _batches(
    config: SimSiamConfig, examples: Examples, rows: NDArray[np.int64]
) -> Iterator[tuple[list[Image], list[int]]]:
    images: list[Image] = []
    own: list[int] = []
    for position, image in read_in_order(rows, examples.reader(config.recipe), order=None):
        if not isinstance(image, RejectedImage):
            images.append(image)
            own.append(int(rows[position]))
        if len(images) == _BATCH:
            yield images, own
            images, own = [], []
    if images:
        yield images, own
