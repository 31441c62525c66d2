"""A tiny task that a tiny network learns: bright squares against dark ones."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pyarrow as pa
import pytest

from schemas.plan import Blob
from workers.training.config import Augmentation, Stage, TrainConfig
from workers.training.examples import Examples


def _png(seed: int, bright: bool) -> bytes:
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 90, (40, 40), dtype=np.uint8)
    row, column = generator.integers(4, 24, 2)
    image[row : row + 10, column : column + 10] += 120 if bright else 20
    return bytes(cv2.imencode(".png", image)[1].tobytes())


class Pictures:
    """Stands in for a store: hands out images by number."""

    def __call__(self, rows: pa.Table) -> Sequence[Blob]:
        seeds = [int(uri.split("/")[-1].removesuffix(".png")) for uri in rows["uri"].to_pylist()]
        return [_png(seed, seed % 2 == 1) for seed in seeds]


@pytest.fixture(scope="session")
def make_examples() -> Callable[[int, int], Examples]:
    """Examples with a number of images to train and to validate on."""

    def make(train: int, val: int) -> Examples:
        numbers = range(train + val)
        rows = pa.table(
            {
                "image_id": [f"{number:032x}" for number in numbers],
                "uri": [f"memory/{number}.png" for number in numbers],
                "frame": pa.array([0] * len(numbers), pa.int32()),
                "part": ["train" if number < train else "val" for number in numbers],
                "label": ["bright" if number % 2 else "dark" for number in numbers],
                "group": [f"p{number // 2}" for number in numbers],
            }
        )
        return Examples(rows, Pictures())

    return make


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    """A training of seconds."""
    return TrainConfig(
        architecture="test_efficientnet",
        classes=("dark", "bright"),
        recipe={"size": 32, "channels": 1},
        stages=(Stage(3, learning_rate=0.01),),
        batch=16,
        seed=5,
        augmentation=Augmentation(rotate_deg=10, translate=0.05, scale=0.1, brightness=0.05),
    )
