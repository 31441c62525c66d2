"""Training a classifier: its data, loss and validation, put together for the epoch loop."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.bundle import Preprocessing
from schemas.errors import RunError
from workers.metrics.scores import macro_auc
from workers.models.classifier.blocks import depth_setter
from workers.models.classifier.heads import head_module, trained_outputs
from workers.models.classifier.network import (
    build_network,
    pretrained_statistics,
    start_from,
)
from workers.models.normalise import Normalised
from workers.prefetch import ahead
from workers.training import ranks
from workers.training.augment import augment
from workers.training.checkpoint import Progress
from workers.training.config import TrainConfig
from workers.training.context import TrainContext
from workers.training.data import ImageCache, Reject, epoch_order, own_rows
from workers.training.examples import Examples
from workers.training.loop import Batch, Learner, LoopSettings, fit, hash_seed
from workers.training.losses import Criterion, make_criterion
from workers.training.mixing import blend, draw_mix
from workers.training.sampling import balanced_order, class_weights

VALIDATION_BATCH = 128
CACHE_SHARE_VAL = 0.2
"""Of a rank's memory for decoded images, what validation images may take."""


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

    ``cache_bytes`` bounds this rank's decoded images in memory; ``start`` is a safetensors
    checkpoint where the configuration asks for one. Pixels are normalised by the statistics of the
    training images, or by those of ``start_pixels``, which the start weights were trained with.

    Raises:
        BundleError: when the start weights do not fit or can't be had, or when a stage trains more
            blocks than the network has.
        RunError: when a part has too few images for the number of workers.
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


@dataclass(frozen=True)
class _Caches:
    """This rank's images, and the label of every row."""

    train: ImageCache
    val: ImageCache
    targets: NDArray[np.int64]
    """By row, of all ranks."""
    train_rows: NDArray[np.int64]
    """Of all ranks."""


def _read(
    config: TrainConfig, examples: Examples, context: TrainContext, cache_bytes: int
) -> _Caches:
    read = examples.reader(config.recipe)
    val_bytes = int(cache_bytes * CACHE_SHARE_VAL)

    def cache(part: str, max_bytes: int) -> ImageCache:
        rows = examples.of_part(part)
        mine = own_rows(rows, context.rank, context.world_size, config.seed)
        order = examples.cheapest_order(mine)
        return ImageCache(mine, read, max_bytes=max_bytes, order=order)

    return _Caches(
        cache("train", cache_bytes - val_bytes),
        cache("val", val_bytes),
        examples.targets(config.classes),
        examples.of_part("train"),
    )


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


def _learner(
    config: TrainConfig,
    caches: _Caches,
    context: TrainContext,
    network: Normalised,
    set_depth: Callable[[int], None],
) -> Learner:
    device = torch.device(context.device)
    batch, steps = _batches(config, caches.train, context)

    def batches(epoch: int) -> Iterator[Batch]:
        place = (epoch, context.rank, batch, steps)
        return ahead(_epoch(config, caches.train, caches.targets, place), depth=2)

    return Learner(
        network=network,
        batches=batches,
        steps=steps,
        loss=_loss(config, caches.targets[caches.train_rows], device),
        validate=lambda network: validate(
            nn.Sequential(network, head_module(config.head)),
            caches.val,
            caches.targets,
            device,
            len(config.classes),
        ),
        monitor="auc",
        set_depth=set_depth,
    )


def predict(
    network: nn.Module, cache: ImageCache, device: torch.device, classes: int
) -> NDArray[np.float32]:
    """Outputs of the head for every image of a cache, float32 (N, classes)."""
    outputs = [np.zeros((0, classes), np.float32)]
    for start in range(0, len(cache), VALIDATION_BATCH):
        positions = np.arange(start, min(start + VALIDATION_BATCH, len(cache)))
        pixels = torch.from_numpy(cache.images(positions)).to(device)
        outputs.append(network(pixels).float().cpu().numpy())
    return np.concatenate(outputs)


def validate(
    network: nn.Module,
    cache: ImageCache,
    targets: NDArray[np.int64],
    device: torch.device,
    classes: int,
) -> Mapping[str, float]:
    """AUC, accuracy and cross-entropy over the validation images of all ranks."""
    logits_NC = torch.from_numpy(predict(network, cache, device, classes)).double()
    scores_NC = logits_NC.softmax(dim=1).numpy()
    own_N1 = targets[cache.rows].astype(np.float64)[:, None]
    gathered = ranks.gather_rows(np.concatenate([own_N1, scores_NC], axis=1), device)
    actual_N, all_NC = gathered[:, 0].astype(np.int64), gathered[:, 1:]
    likelihood_N = all_NC[np.arange(len(actual_N)), actual_N]
    return {
        "auc": macro_auc(actual_N, all_NC),
        "accuracy": float((all_NC.argmax(axis=1) == actual_N).mean()),
        "val_loss": float(-np.log(np.maximum(likelihood_N, 1e-12)).mean()),
    }


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


def _loss(config: TrainConfig, targets: NDArray[np.int64], device: torch.device) -> _BatchLoss:
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


def _epoch(
    config: TrainConfig,
    cache: ImageCache,
    targets: NDArray[np.int64],
    place: tuple[int, int, int, int],
) -> Iterator[Batch]:
    epoch, rank, batch, steps = place
    own_N = targets[cache.rows]
    if config.balance == "sampler":
        order = balanced_order(own_N, batch * steps, epoch, rank, config.seed)
    else:
        order = epoch_order(len(cache), epoch, rank, config.seed)
    generator = torch.Generator().manual_seed(hash_seed(config.seed, epoch, rank, 1))
    mixing = np.random.default_rng((config.seed, 3, epoch, rank))
    for step in range(steps):
        positions = order[step * batch : (step + 1) * batch]
        pixels_NCHW = torch.from_numpy(cache.images(positions))
        changed_NCHW = augment(pixels_NCHW, config.augmentation, generator)
        targets_N = torch.from_numpy(own_N[positions])
        if not config.augmentation.mixup:
            yield changed_NCHW, targets_N
            continue
        mix = draw_mix(len(positions), config.augmentation.mixup, mixing)
        share = torch.tensor(mix.share, dtype=torch.float32)
        one_hot_NK = torch.nn.functional.one_hot(targets_N, len(config.classes))
        yield changed_NCHW, blend(one_hot_NK, mix.partners_N, share), mix.partners_N, share


def _batches(config: TrainConfig, cache: ImageCache, context: TrainContext) -> tuple[int, int]:
    """Images of a rank's step, and steps of an epoch; the last incomplete batch is left out."""
    fewest = min(ranks.gather_counts(len(cache), torch.device(context.device)))
    batch = max(config.batch // context.world_size, 1)
    batch = min(batch, fewest)
    if batch < 2:
        raise RunError(
            "too few training images for batch normalisation",
            got=f"{fewest} images on a worker, batch {config.batch} over {context.world_size}",
            remedy="train with fewer workers, a larger batch or more images",
        )
    return batch, fewest // batch


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
