"""A small archive that is catalogued for real, and a pool that works in this process."""

import csv
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cluster.inline_pool import InlinePool
from cluster.lake.store import LakeStore
from jobs import annotate, ingest
from schemas.protocols import Report
from schemas.specs.annotate import AnnotateSpec
from schemas.specs.ingest import IngestSpec

DATASET = "busi"


def png(pixels: NDArray[Any]) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def picture(number: int, height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 255, (height, width), dtype=np.uint8)


def mask(*boxes: tuple[int, int, int, int], height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    """White rectangles: x, y, w, h."""
    drawn = np.zeros((height, width), np.uint8)
    for x, y, w, h in boxes:
        drawn[y : y + h, x : x + w] = 255
    return drawn


def pool(store: LakeStore) -> InlinePool:
    return InlinePool(store.root, lambda told: None)


def catalogue(folder: Path, store: LakeStore, **changes: Any) -> Report:
    stated = {
        "dataset": DATASET,
        "source": str(folder),
        "modality": "US",
        "fields": {"path": r"(?P<label>benign|malignant|normal)/images/.*"},
    }
    report = ingest.run(IngestSpec.model_validate(stated | changes), pool(store), store)
    assert report.counts.rejected == 0
    return report


def annotated(store: LakeStore, **changes: Any) -> Report:
    spec = AnnotateSpec.model_validate({"dataset": DATASET, "source": "reader"} | changes)
    report = annotate.run(spec, pool(store), store)
    counts = report.counts.to_dict()
    assert counts.pop("input") == sum(counts.values())
    return report


def table(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def boxes(store: LakeStore, source: str = "reader") -> list[dict[str, Any]]:
    """The current boxes with the names of their images."""
    return store.query(
        """SELECT regexp_extract(uri, '[^/]*$') AS image, category, x, y, w, h, area, iscrowd
        FROM current_annotations JOIN current_images USING (image_id)
        WHERE source = $source ORDER BY ALL""",
        {"source": source},
    ).to_pylist()


def rejects(store: LakeStore) -> list[tuple[str, str]]:
    rows = store.query("SELECT reason, detail FROM rejects WHERE stage = 'annotate' ORDER BY ALL")
    return [(row["reason"], row["detail"]) for row in rows.to_pylist()]
