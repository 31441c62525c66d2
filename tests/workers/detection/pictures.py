"""Grey pictures with bright and dark squares, as files and as rows of a plan."""

from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa

from schemas.plan import Blob
from workers.detection.config import DetectorConfig
from workers.training.config import Optimisation, Stage
from workers.training.examples import Examples

CLASSES = ("bright", "dark")
SIDE = 64


def picture(
    rng: np.random.Generator, width: int, height: int, empty: bool
) -> tuple[bytes, list[float], list[int]]:
    """A noisy PNG with one square of each class, or none, and its boxes."""
    pixels_HW = rng.integers(100, 130, (height, width), np.uint8)
    boxes: list[float] = []
    categories: list[int] = []
    for category, level in enumerate((230, 10)):
        if empty:
            break
        side = int(rng.integers(min(width, height) // 4, min(width, height) // 3))
        # The bright one in the left half, the dark one in the right: they never meet.
        half = width // 2
        x = int(rng.integers(0, half - side)) + half * category
        y = int(rng.integers(0, height - side))
        pixels_HW[y : y + side, x : x + side] = level
        boxes += [x, y, side, side]
        categories.append(category)
    coded = cv2.imencode(".png", pixels_HW)[1].tobytes()
    return coded, boxes, categories


def examples(train: int, val: int, seed: int = 0, every_empty: int = 4) -> Examples:
    """So many pictures of each part, of odd sizes; every fourth has no box."""
    rng = np.random.default_rng(seed)
    rows = []
    blobs: dict[str, bytes] = {}
    for number in range(train + val):
        width, height = int(rng.integers(81, 120)), int(rng.integers(61, 90))
        coded, boxes, categories = picture(rng, width, height, number % every_empty == 0)
        blobs[str(number)] = coded
        rows.append(
            {
                "image_id": f"{number:032x}",
                "uri": str(number),
                "frame": 0,
                "etag": "e",
                "width": width,
                "height": height,
                "part": "train" if number < train else "val",
                "group": str(number),
                "boxes": boxes,
                "categories": categories,
                "ignored": [False] * len(categories),
            }
        )
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("image_id", "uri", "etag", "part", "group")),
            *((name, pa.int32()) for name in ("frame", "width", "height")),
            ("boxes", pa.list_(pa.float32())),
            ("categories", pa.list_(pa.int32())),
            ("ignored", pa.list_(pa.bool_())),
        ]
    )

    def fetch(taken: pa.Table) -> Sequence[Blob]:
        return [blobs[uri] for uri in taken["uri"].to_pylist()]

    return Examples(pa.Table.from_pylist(rows, schema=schema), fetch)


def config(family: str, epochs: int = 2) -> DetectorConfig:
    """A training of seconds."""
    return DetectorConfig(
        family=family,
        architecture={"centernet": "test_resnet", "yolox": "yolox-nano"}[family],
        classes=CLASSES,
        recipe={"size": SIDE, "channels": 1},
        stages=(Stage(epochs=epochs, learning_rate=3e-3),),
        batch=8,
        final_epochs=1,
        final_loss={"l1": True} if family == "yolox" else {},
        optimisation=Optimisation(warm_up_epochs=0.5),
    )
