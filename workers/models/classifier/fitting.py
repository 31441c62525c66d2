"""Training a classifier: its data, loss and validation, put together for the epoch loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.models.blocks import depth_setter
from workers.models.classifier.feeding import epoch_batches
from workers.models.classifier.heads import head_module, trained_outputs
from workers.models.classifier.validating import ValidationPart, validate
from workers.models.network import (
    build_network,
    start_from,
)
from workers.models.normalise import Normalised
from workers.models.pixels import preprocessing_of
from workers.prefetch import ahead
from workers.training.config import TrainConfig
from workers.training.context import TrainContext
from workers.training.examples import Examples
from workers.training.feeding import (
    Caches,
    Fitted,
    Origin,
    Share,
    decode_threads,
    open_caches,
    pinned,
    share_of_epoch,
)
from workers.training.loop import Batch, Learner, LoopSettings, fit, hash_seed
from workers.training.losses import Criterion, make_criterion
from workers.training.mixing import blend
from workers.training.sampling import class_weights


def fit_classifier(
    config: TrainConfig,
    examples: Examples,
    context: TrainContext,
    *,
    origin: Origin,
    cache_bytes: int,
) -> Fitted:
    """Train a classifier on the rows of parts ``train`` and ``val``.

    ``cache_bytes`` bounds this rank's decoded images in memory, and so does half of the memory that
    is left, shared by all ranks. Pixels are normalised by the statistics of the training images, or
    by those that the start weights were trained with.

    Raises:
        BundleError: when the start weights do not fit or can't be had, or when a stage trains more
            blocks than the network has.
        RunError: when a part has too few images for the number of workers, or when the training
            diverges.
    """
    device = torch.device(context.device)
    # Before images are read, which takes its time: what is wrong here needs none.
    network = _network(config, origin.weights)
    set_depth = depth_setter(network, [stage.unfrozen for stage in config.stages])
    read = examples.reader(config.recipe, decode_threads(device))
    caches = open_caches(examples, read, context, cache_bytes=cache_bytes, seed=config.seed)
    share = share_of_epoch(config.batch, caches.train, context)
    preprocessing = preprocessing_of(config, caches.train, device, origin.pixels)
    whole = Normalised(network, preprocessing.mean, preprocessing.std)
    targets = examples.targets(config.classes)
    data = _Data(caches, share, targets, examples.of_part("train"))
    learner = _learner(config, data, context, whole, set_depth)
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
class _Data:
    """This rank's images, and the label of every row."""

    caches: Caches
    share: Share
    targets: NDArray[np.int64]
    """By row, of all ranks."""
    train_rows: NDArray[np.int64]
    """Of all ranks."""


def _learner(
    config: TrainConfig,
    data: _Data,
    context: TrainContext,
    network: Normalised,
    set_depth: Callable[[int], None],
) -> Learner:
    device = torch.device(context.device)
    share, classes = data.share, len(config.classes)
    part = ValidationPart(data.caches.val, data.targets, classes, share.batch)

    def batches(epoch: int) -> Iterator[Batch]:
        made = epoch_batches(config, data.caches.train, data.targets, epoch, share)
        return ahead(pinned(made) if device.type == "cuda" else made, depth=2)

    return Learner(
        network=network,
        batches=batches,
        steps=share.steps,
        loss=_loss(config, data.targets[data.train_rows], device),
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
