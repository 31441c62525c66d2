"""What both sides of `training` train on; imports no Ray."""

from pathlib import Path

import pyarrow as pa

from cluster.sources import local_etag
from workers.training.config import Stage, TrainConfig

SIDE_PX = 64
VALIDATION_EVERY = 8
CACHE_BYTES = 2**30


def config(epochs: int) -> TrainConfig:
    """The training both sides run."""
    return TrainConfig(
        architecture="resnet18",
        classes=("normal", "pneumonia"),
        recipe={"size": SIDE_PX, "channels": 1},
        stages=(Stage(epochs),),
        batch=32,
    )


def rows(archive: Path) -> pa.Table:
    """The archive as the rows of a training's plan; every eighth image validates."""
    paths = sorted(archive.iterdir())
    count = len(paths)
    return pa.table(
        {
            "image_id": [f"{number:032x}" for number in range(count)],
            "uri": [str(path) for path in paths],
            "frame": pa.array([0] * count, pa.int32()),
            "etag": [local_etag(path.stat()) for path in paths],
            "part": ["train" if one % VALIDATION_EVERY else "val" for one in range(count)],
            "label": [path.stem.partition("-")[2] for path in paths],
            "group": [str(number) for number in range(count)],
        }
    )
