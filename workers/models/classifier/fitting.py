"""Training a classifier: its data, loss and validation, put together for the epoch loop."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.bundle import Preprocessing
from schemas.errors import RunError
from workers.models.classifier.blocks import depth_setter
from workers.models.classifier.feeding import (
    Share,
    epoch_batches,
    pinned,
    share_of_epoch,
)
from workers.models.classifier.heads import head_module, trained_outputs
from workers.models.classifier.validating import ValidationPart, validate
from workers.models.network import (
    build_network,
    pretrained_statistics,
    start_from,
)
from workers.models.normalise import Normalised
from workers.prefetch import ahead
from workers.training import ranks
from workers.training.checkpoint import Progress
from workers.training.config import TrainConfig
from workers.training.context import TrainContext
from workers.training.data import ImageCache, Reject, own_rows
from workers.training.examples import Examples
from workers.training.loop import Batch, Learner, LoopSettings, fit, hash_seed
from workers.training.losses import Criterion, make_criterion
from workers.training.memory import image_bytes
from workers.training.mixing import blend
from workers.training.sampling import class_weights

CACHE_SHARE_VAL = 0.2
"""Of a rank's memory for decoded images, what validation images may take."""
MOST_DECODE_THREADS = 8


@dataclass(frozen=True)
class Fitted:
    """What training a classifier came to; complete on the first rank."""

    progress: Progress
    preprocessing: Preprocessing
    rejects: tuple[Reject, ...]
    """This rank's rows that could not be read."""


def fit_classifier(
    config: TrainConfig,
    examples: Examples,
    context: TrainContext,
    *,
    cache_bytes: int,
    start: bytes | None = None,
    start_pixels: Preprocessing | None = None,
) -> Fitted:
    """Train a classifier on the rows of parts ``train`` and ``val``.

    ``cache_bytes`` bounds this rank's decoded images in memory, and so does half of the memory that
    is left, shared by all ranks; ``start`` is a safetensors
    checkpoint where the configuration asks for one. Pixels are normalised by the statistics of the
    training images, or by those of ``start_pixels``, which the start weights were trained with.

    Raises:
        BundleError: when the start weights do not fit or can't be had, or when a stage trains more
            blocks than the network has.
        RunError: when a part has too few images for the number of workers, or when the training
            diverges.
    """
    device = torch.device(context.device)
    # Before images are read, which takes its time: what is wrong here needs none.
    network = _network(config, start)
    set_depth = depth_setter(network, [stage.unfrozen for stage in config.stages])
    caches = _read(config, examples, context, cache_bytes)
    preprocessing = _preprocessing(config, caches.train, device, start_pixels)
    whole = Normalised(network, preprocessing.mean, preprocessing.std)
    learner = _learner(config, caches, context, whole, set_depth)
    settings = LoopSettings(
        stages=config.stages,
        seed=config.seed,
        optimisation=config.optimisation,
        precision=config.precision,
        stop_after=config.stop_after,
        ema_decay=config.ema_decay,
    )
    progress = fit(learner, settings, context)
    return Fitted(progress, preprocessing, (*caches.train.rejects, *caches.val.rejects))


def _network(config: TrainConfig, start: bytes | None) -> nn.Module:
    torch.manual_seed(hash_seed(config.seed))
    pretrained = config.start == "timm"
    network = build_network(
        config.architecture,
        trained_outputs(config.head, len(config.classes)),
        config.in_chans,
        pretrained=pretrained,
    )
    if start is not None:
        start_from(network, start, new_head=config.new_head)
    return network


@dataclass(frozen=True)
class _Caches:
    """This rank's images, and the label of every row."""

    train: ImageCache
    val: ImageCache
    share: Share
    targets: NDArray[np.int64]
    """By row, of all ranks."""
    train_rows: NDArray[np.int64]
    """Of all ranks."""


def _read(
    config: TrainConfig, examples: Examples, context: TrainContext, cache_bytes: int
) -> _Caches:
    device = torch.device(context.device)
    read = examples.reader(config.recipe, _decode_threads(device))
    cache_bytes = image_bytes(cache_bytes, context.world_size)
    val_bytes = int(cache_bytes * CACHE_SHARE_VAL)

    def cache(part: str, max_bytes: int) -> ImageCache:
        rows = examples.of_part(part)
        mine = own_rows(rows, context.rank, context.world_size, config.seed)
        order = examples.cheapest_order(mine)
        return ImageCache(mine, read, max_bytes=max_bytes, order=order)

    train, val = cache("train", cache_bytes - val_bytes), cache("val", val_bytes)
    if not sum(ranks.gather_counts(len(val), device)):
        count = len(examples.of_part("val"))
        raise RunError("No validation image can be read", got=f"{count} images")
    return _Caches(
        train,
        val,
        share_of_epoch(config, train, context),
        examples.targets(config.classes),
        examples.of_part("train"),
    )


def _decode_threads(device: torch.device) -> int:
    """A worker on a CPU has that one CPU; one on a GPU has its share of the machine's."""
    if device.type == "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) // max(torch.cuda.device_count(), 1)
    return min(max(cores, 1), MOST_DECODE_THREADS)


def _preprocessing(
    config: TrainConfig, cache: ImageCache, device: torch.device, start: Preprocessing | None
) -> Preprocessing:
    """Mean and standard deviation of the training pixels, or those the start weights know."""
    if config.start == "timm":
        mean, std = _channels(pretrained_statistics(config.architecture), config.in_chans)
    elif start is not None:
        mean, std = _channels((list(start.mean), list(start.std)), config.in_chans)
    else:
        counts_C256 = ranks.add_up(cache.levels(), device)
        shares_C256 = counts_C256 / counts_C256.sum(axis=1, keepdims=True)
        levels = np.arange(256) / 255
        mean_C = shares_C256 @ levels
        variance_C = np.maximum(shares_C256 @ levels**2 - mean_C**2, 1e-4)
        mean = [round(float(value), 4) for value in mean_C]
        std = [round(float(value), 4) for value in np.sqrt(variance_C)]
    return Preprocessing(recipe=dict(config.recipe), mean=tuple(mean), std=tuple(std))


def _channels(
    statistics: tuple[list[float], list[float]], channels: int
) -> tuple[list[float], list[float]]:
    """Statistics for a number of channels: the mean of those known, where it is another."""
    mean, std = statistics
    if len(mean) == channels:
        return mean, std
    return [float(np.mean(mean))] * channels, [float(np.mean(std))] * channels


def _learner(
    config: TrainConfig,
    caches: _Caches,
    context: TrainContext,
    network: Normalised,
    set_depth: Callable[[int], None],
) -> Learner:
    device = torch.device(context.device)
    share, classes = caches.share, len(config.classes)
    part = ValidationPart(caches.val, caches.targets, classes, share.batch)

    def batches(epoch: int) -> Iterator[Batch]:
        made = epoch_batches(config, caches.train, caches.targets, epoch, share)
        return ahead(pinned(made) if device.type == "cuda" else made, depth=2)

    return Learner(
        network=network,
        batches=batches,
        steps=share.steps,
        loss=_loss(config, caches.targets[caches.train_rows], device),
        validate=lambda network: validate(
            nn.Sequential(network, head_module(config.head)), part, device
        ),
        monitor="auc",
        val_loss="val_loss",
        set_depth=set_depth,
    )


def _loss(config: TrainConfig, targets: NDArray[np.int64], device: torch.device) -> "_BatchLoss":
    weights_K = None
    if config.balance == "weights":
        weights_K = torch.from_numpy(class_weights(targets, len(config.classes))).float()
    criterion = make_criterion(
        config.loss,
        config.head,
        config.classes,
        weights_K=weights_K,
        smoothing=config.label_smoothing,
    )
    return _BatchLoss(criterion.to(device))


class _BatchLoss:
    """The criterion of a batch, in float32; blends the batch first where it says how."""

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        pixels_NCHW, targets, *mix = batch
        if mix:
            # Here, on the device: blended pixels take four times the bytes of those to be blended.
            pixels_NCHW = blend(pixels_NCHW, *mix)
        outputs_NO = network(pixels_NCHW)
        with torch.autocast(outputs_NO.device.type, enabled=False):
            loss: Tensor = self._criterion(outputs_NO.float(), targets)
        return loss
