"""Detectors in the seeded lake: bundles, boxes and what was found."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.lake.bundles import bundle_folder
from cluster.lake.store import LakeStore
from jobs.bundles import model_row
from schemas.bundle import CONFIG_FILE, BundleConfig, DetectionSettings
from schemas.plan import ShardFunction
from schemas.protocols import Run
from schemas.specs.base import Execution
from tests.jobs.seeding import InlinePool, bundle_config, image_id, seed

CLASSES = ("cyst", "HCC")
SOURCE = "readers"
MODEL_ID = "00112233aabbccdd"


class ComputingPool(InlinePool):
    """Computes shards with the function that a kind makes of its plan's parameters."""

    def __init__(self, load: Callable[[Mapping[str, Any]], ShardFunction]) -> None:
        super().__init__()
        self._load = load

    def run_shards(self, run: Run, execution: Execution) -> None:
        self.function = self._load(run.plan.params)
        super().run_shards(run, execution)


def detector_config(
    name: str, model_id: str = MODEL_ID, *, threshold: float = 0.3, **changes: Any
) -> BundleConfig:
    settings = DetectionSettings(score_threshold=threshold, one_class=changes.pop("merged", False))
    classes = changes.pop("classes", CLASSES)
    return bundle_config(
        name,
        model_id,
        family="centernet",
        classes=classes,
        num_classes=len(classes),
        operating_point=None,
        detection=settings,
        **changes,
    )


def put_detector(store: LakeStore, config: BundleConfig) -> None:
    """Name a bundle in `models` and write what an evaluation reads of it."""
    seed(store, {"models": [model_row(config, 1, nightly=False)]})
    folder = Path(store.root) / bundle_folder(config.name, 1)
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_bytes(config.to_json())


def mark(number: int, category: str | None, box: Sequence[float] = (), **changes: Any) -> Any:
    """A row of `annotations`; without a box the image was looked at and has none."""
    x, y, w, h = box or (None,) * 4
    row = {
        "image_id": image_id(number), "source": SOURCE, "category": category,
        "x": x, "y": y, "w": w, "h": h, "area": w * h if w and h else None,
        "iscrowd": False, "made_from": f"m{number}",
    }  # fmt: skip
    return row | changes


def found(number: int, category: str, score: float, box: Sequence[float], **changes: Any) -> Any:
    """A row of `detections`."""
    x, y, w, h = box
    row = {
        "image_id": image_id(number), "model_id": MODEL_ID, "category": category, "score": score,
        "x": x, "y": y, "w": w, "h": h,
    }  # fmt: skip
    return row | changes


def rejected(number: int, source: str = SOURCE, **changes: Any) -> dict[str, Any]:
    """A row of `rejects`: what a source says of an image could not be used."""
    row = {
        "image_id": image_id(number), "uri": f"archive/{number:04d}.png", "stage": "annotate",
        "subject": source, "etag": f"m{number}", "reason": "outside_image",
    }  # fmt: skip
    return row | changes


def scored(numbers: Sequence[int], model_id: str = MODEL_ID) -> list[dict[str, Any]]:
    """Rows of `predictions`: these images were scored."""
    return [
        {"image_id": image_id(n), "model_id": model_id, "scores": [0.5, 0.5], "score": 0.5}
        for n in numbers
    ]


def figures(store: LakeStore, part: str) -> Mapping[tuple[str, str | None], float]:
    """The newest figures of a part by metric and category."""
    rows = store.query(
        "SELECT metric, category, value FROM metrics WHERE part = $part "
        "QUALIFY rank() OVER (ORDER BY run_id DESC) = 1",
        {"part": part},
    )
    return {(row["metric"], row["category"]): row["value"] for row in rows.to_pylist()}


def facts(store: LakeStore, kind: str) -> dict[str, Any]:
    """What the newest run of a kind found."""
    rows = store.query(
        "SELECT facts FROM runs WHERE kind = $kind ORDER BY recorded_at DESC LIMIT 1",
        {"kind": kind},
    )
    told: dict[str, Any] = json.loads(rows["facts"][0].as_py())
    return told
