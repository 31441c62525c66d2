"""From a finished training's last checkpoint to the files of its bundle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import safetensors.torch

from schemas.bundle import Preprocessing
from workers.models.classifier.bundling import BundleFacts, Validation, make_bundle
from workers.training.config import TrainConfig
from workers.training.examples import Examples
from workers.training.finishing import decode_validation, inner_state, training_facts


def finish_bundle(
    checkpoint: tuple[bytes, bytes],
    preprocessing: Preprocessing,
    facts: BundleFacts,
    config: TrainConfig,
    examples: Examples,
) -> dict[str, bytes]:
    """The bundle of the best epoch; ``checkpoint`` is its weights and the progress as JSON."""
    best, told = checkpoint
    progress: Mapping[str, Any] = json.loads(told)
    weights = safetensors.torch.save(inner_state(best))
    training = training_facts(progress, config.to_dict())
    whole = replace(
        facts,
        head=config.head,
        calibrate=config.calibrate,
        training={**facts.training, **training},
    )
    return make_bundle(
        weights, preprocessing, whole, read_validation(config.recipe, config.classes, examples)
    )


def read_validation(
    recipe: Mapping[str, Any], classes: Sequence[str], examples: Examples
) -> Validation:
    """Decode the validation part; see `workers.training.finishing.decode_validation`.

    Raises:
        RunError: when none can be read.
    """
    pixels_NCHW, rows = decode_validation(examples, recipe, examples.reader(recipe))
    groups = examples.rows.column("group").to_pylist()
    return Validation(pixels_NCHW, examples.targets(classes)[rows], [groups[row] for row in rows])
