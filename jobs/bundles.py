"""Rows of `models`, and what a bundle says beyond its row."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.bundle import CONFIG_FILE, WEIGHTS_FILE, BundleConfig, DetectionSettings, parse_config
from schemas.errors import BundleError
from schemas.naming import reference
from schemas.protocols import Store
from workers.pixels.steps import Recipe


def model_row(config: BundleConfig, version: int, *, nightly: bool) -> dict[str, object]:
    """The row of `models` that names a bundle."""
    point = config.operating_point
    return {
        "model_id": config.model_id,
        "name": config.name,
        "version": version,
        "family": config.family,
        "architecture": config.architecture,
        "recipe": Recipe.from_dict(config.preprocessing.recipe).hash,
        "classes": list(config.classes),
        "operating_point": point.model_dump_json() if point else None,
        "calibration": config.calibration.model_dump_json(),
        "nightly": nightly,
        "metrics": json.dumps({**config.metrics.get("val", {}), **_confidence(config)}),
        # The weights' hash tells a checkpoint that is a copy of them.
        "data": json.dumps({**config.data, **_weights(config)}),
        "fingerprint": config.fingerprint,
        "created_at": datetime.now(UTC),
    }


def _confidence(config: BundleConfig) -> dict[str, float]:
    """From where on a detection counts; it belongs to no class, so it is no operating point."""
    return {} if config.detection is None else {"threshold": config.detection.score_threshold}


def _weights(config: BundleConfig) -> dict[str, str]:
    found = config.files.get(WEIGHTS_FILE)
    return {} if found is None else {"weights": found}


def is_trained(model: str, made_by: str, store: Store) -> bool:
    """Whether the newest version of a bundle came from just this fingerprint."""
    newest = store.query(
        "SELECT fingerprint FROM models WHERE name = $name ORDER BY version DESC LIMIT 1",
        {"name": model},
    )
    return bool(newest["fingerprint"].to_pylist() == [made_by])


def require_classifier(bundle: Mapping[str, Any], remedy: str) -> None:
    """Refuse a bundle whose scores are no probabilities of classes.

    Raises:
        BundleError: if it is a detector, or has no classes.
    """
    if bundle["family"] != "classifier":
        raise BundleError(
            "The bundle is no classifier",
            where=reference(bundle),
            got=bundle["family"],
            remedy=remedy,
        )


def detection_settings(bundle: Mapping[str, Any], store: Store) -> DetectionSettings:
    """What a bundle's detections mean, from its configuration.

    Raises:
        BundleError: if it is no detector.
    """
    uri = f"{bundle['uri']}/{CONFIG_FILE}"
    config = parse_config(store.read_source(uri), str(bundle["uri"]))
    if config.detection is None:
        raise BundleError(
            "The bundle is no detector",
            where=reference(bundle),
            got=config.family,
            remedy="name a detector; `kind: evaluate` is for classifiers",
        )
    return config.detection
