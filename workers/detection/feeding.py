"""The batches of a detector's training: order, augmentation, targets."""

from collections.abc import Iterator

import numpy as np
import torch

from workers.detection.augmentation import Marked
from workers.detection.config import DetectorConfig
from workers.detection.examples import MarkedImages
from workers.detection.family import pack
from workers.detection.mosaic import compose
from workers.training.data import epoch_order
from workers.training.feeding import Share
from workers.training.loop import Batch


def epoch_batches(
    config: DetectorConfig, images: MarkedImages, epoch: int, share: Share
) -> Iterator[Batch]:
    """Pixels, uint8 (N, C, S, S), and targets as `workers.detection.family.pack` makes them.

    The same epoch gives the same batches whenever it is run.
    """
    settings = config.augmentation
    if config.is_final(epoch):
        # What a network sees when it scores is one whole image.
        settings = settings.alone()
    order = epoch_order(len(images), epoch, share.rank, config.seed)
    for step in range(share.steps):
        positions = order[step * share.batch : (step + 1) * share.batch]
        composed = []
        for place, marked in enumerate(images.take(positions)):
            # One generator an image: what one draws moves no other.
            generator = np.random.default_rng((config.seed, 5, epoch, share.rank, step, place))

            def draw(generator: np.random.Generator = generator) -> Marked:
                return images.take(generator.integers(len(images), size=1))[0]

            composed.append(compose(marked, draw, settings, generator))
        pixels_NCSS = torch.from_numpy(np.stack([one.pixels_CSS for one in composed]))
        yield pixels_NCSS, pack([one.boxes for one in composed])
