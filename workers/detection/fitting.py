"""Training a detector: its data, loss and validation, put together for the epoch loop."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from workers.detection.config import DetectorConfig
from workers.detection.depth import backbone_depth_setter
from workers.detection.examples import MarkedImages, MarkedReader
from workers.detection.families import family_of
from workers.detection.feeding import epoch_batches
from workers.detection.validating import ValidationPart, validate
from workers.detection.weights import build_detector
from workers.models.normalise import Normalised
from workers.models.pixels import preprocessing_of
from workers.prefetch import ahead
from workers.training.context import TrainContext
from workers.training.examples import Examples
from workers.training.feeding import (
    Fitted,
    Origin,
    Share,
    decode_threads,
    open_caches,
    pinned,
    share_of_epoch,
)
from workers.training.loop import Batch, Learner, LoopSettings, fit


def fit_detector(
    config: DetectorConfig,
    examples: Examples,
    context: TrainContext,
    *,
    origin: Origin,
    cache_bytes: int,
) -> Fitted:
    """Train a detector on the rows of parts ``train`` and ``val``.

    ``cache_bytes`` bounds this rank's decoded images in memory. Pixels are normalised by the
    statistics of the training images, or by those that the start weights were trained with.

    Raises:
        BundleError: when the start weights do not fit or can't be had, or when a stage trains more
            blocks than the backbone has.
        RunError: when a part has too few images for the number of workers, or when the training
            diverges.
    """
    device = torch.device(context.device)
    # Before images are read, which takes its time: what is wrong here needs none.
    network = build_detector(config, origin.weights)
    set_depth = backbone_depth_setter(network, [stage.unfrozen for stage in config.stages])
    reader = MarkedReader(examples, config.recipe, decode_threads(device))
    caches = open_caches(examples, reader, context, cache_bytes=cache_bytes, seed=config.seed)
    share = share_of_epoch(config.batch, caches.train, context)
    preprocessing = preprocessing_of(config, caches.train, device, origin.pixels)
    images = MarkedImages(caches.train, reader)
    part = ValidationPart(MarkedImages(caches.val, reader), config, share.batch)
    loss = DetectionLoss(config)
    learner = Learner(
        network=Normalised(network, preprocessing.mean, preprocessing.std),
        batches=lambda epoch: _batches(config, images, epoch, share, loss, device),
        steps=share.steps,
        loss=loss,
        validate=lambda judged: validate(judged, part, device),
        monitor="ap50",
        val_loss="val_loss",
        set_depth=set_depth,
    )
    progress = fit(learner, _settings(config), context)
    return Fitted(progress, preprocessing, (*caches.train.rejects, *caches.val.rejects))


class DetectionLoss:
    """The sum of a family's losses of a batch, in float32."""

    def __init__(self, config: DetectorConfig) -> None:
        family, classes = family_of(config.family), len(config.classes)
        self._config = config
        self._first = family.criterion(classes, config.loss)
        self._final = family.criterion(classes, {**config.loss, **config.final_loss})
        self._now = self._first

    def begin(self, epoch: int) -> None:
        """Take the loss of an epoch."""
        self._now = self._final if self._config.is_final(epoch) else self._first

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        """The loss of pixels and targets by the (wrapped) network."""
        pixels_NCSS, targets_NM6 = batch
        maps = network(pixels_NCSS)
        with torch.autocast(pixels_NCSS.device.type, enabled=False):
            losses = self._now(tuple(one.float() for one in maps), targets_NM6)
            return torch.stack(list(losses.values())).sum()


def _batches(
    config: DetectorConfig,
    images: MarkedImages,
    epoch: int,
    share: Share,
    loss: DetectionLoss,
    device: torch.device,
) -> Iterator[Batch]:
    loss.begin(epoch)
    made = epoch_batches(config, images, epoch, share)
    return ahead(pinned(made) if device.type == "cuda" else made, depth=2)


def _settings(config: DetectorConfig) -> LoopSettings:
    return LoopSettings(
        stages=config.stages,
        seed=config.seed,
        optimisation=config.optimisation,
        precision=config.precision,
        stop_after=config.stop_after,
        ema_decay=config.ema_decay,
        ema_ramp=config.ema_ramp,
    )
