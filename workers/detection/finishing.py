"""From a finished training's last checkpoint to the files of a detector's bundle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import safetensors.torch

from schemas.bundle import Preprocessing
from workers.detection.bundling import DetectorFacts, Validation, make_bundle
from workers.detection.config import DetectorConfig
from workers.detection.examples import MarkedReader
from workers.training.examples import Examples
from workers.training.finishing import decode_validation, inner_state, training_facts


def finish_bundle(
    checkpoint: tuple[bytes, bytes],
    preprocessing: Preprocessing,
    facts: DetectorFacts,
    config: DetectorConfig,
    examples: Examples,
) -> dict[str, bytes]:
    """The bundle of the best epoch; ``checkpoint`` is its weights and the progress as JSON.

    Raises:
        RunError: when no validation image can be read.
    """
    best, told = checkpoint
    progress: Mapping[str, Any] = json.loads(told)
    training = training_facts(progress, config.to_dict())
    return make_bundle(
        safetensors.torch.save(inner_state(best)),
        preprocessing,
        replace(facts, training={**facts.training, **training}),
        config,
        read_validation(config, examples),
    )


def read_validation(config: DetectorConfig, examples: Examples) -> Validation:
    """Decode the validation part; see `workers.training.finishing.decode_validation`.

    Raises:
        RunError: when none can be read.
    """
    reader = MarkedReader(examples, config.recipe)
    pixels_NCSS, rows = decode_validation(examples, config.recipe, reader)
    return Validation(
        pixels_NCSS,
        [reader.original(row) for row in rows],
        [reader.geometry(row) for row in rows],
        sizes_of(examples, rows),
    )


def sizes_of(examples: Examples, rows: Sequence[int]) -> list[tuple[int, int] | None]:
    """Width and height of the originals, where they are catalogued."""
    widths = examples.rows["width"].to_pylist()
    heights = examples.rows["height"].to_pylist()
    return [
        None if widths[row] is None or heights[row] is None else (widths[row], heights[row])
        for row in rows
    ]
