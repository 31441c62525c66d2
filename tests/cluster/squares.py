"""A training of seconds for tests: bright squares against dark ones, on disk."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from cluster.sources import local_etag

CLASSES = ("dark", "bright")
BROKEN = 3
"""The number of the image that can't be decoded."""


def squares(folder: Path, count: int = 64) -> pa.Table:
    """Draw images and return the rows of their training; three quarters are to train on."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 90, (40, 40), dtype=np.uint8)
        pixels[10:20, 10:20] += 120 if number % 2 else 20
        path = folder / f"{number:03d}.png"
        path.write_bytes(b"" if number == BROKEN else cv2.imencode(".png", pixels)[1].tobytes())
        rows.append(
            {
                "image_id": f"{number:032x}",
                "uri": str(path),
                "frame": 0,
                "etag": local_etag(path.stat()),
                "part": "train" if number // 2 % 4 else "val",
                "label": CLASSES[number % 2],
                "group": str(number),
            }
        )
    table = pa.Table.from_pylist(rows)
    places = table.column_names.index("frame")
    return table.set_column(places, "frame", table["frame"].cast(pa.int32()))


def params(epochs: int = 3, **training: Any) -> dict[str, Any]:
    """The parameters of the plan of a training on `squares`."""
    return {
        "training": {
            "architecture": "test_efficientnet",
            "classes": list(CLASSES),
            "recipe": {"size": 32, "channels": 1},
            "stages": [{"epochs": epochs, "learning_rate": 0.01}],
            "batch": 16,
            "seed": 5,
            **training,
        },
        "start_uri": None,
        "bundle": {
            "name": "squares",
            "positive": "bright",
            "rule": "youden",
            "data": {"dataset": "chests", "split": "chests-split"},
            "fingerprint": "f" * 16,
            "backends": "eager",
        },
    }
