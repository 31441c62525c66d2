"""Training SimSiam: its data, loss and figures, put together for the epoch loop."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.models.network import start_from
from workers.models.normalise import Normalised
from workers.models.pixels import preprocessing_of
from workers.models.simsiam.config import ProbeSettings, SimSiamConfig
from workers.models.simsiam.network import SimSiam
from workers.models.simsiam.views import make_view
from workers.models.simsiam.watching import UNKNOWN, Watch, Watched
from workers.prefetch import ahead
from workers.training.context import TrainContext
from workers.training.data import ImageCache, epoch_order
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
from workers.training.loop import Batch, Learner, LoopSettings, fit, hash_seed


def fit_simsiam(
    config: SimSiamConfig,
    examples: Examples,
    context: TrainContext,
    *,
    origin: Origin,
    cache_bytes: int,
) -> Fitted:
    """Train a backbone on the images of part ``train``, without their labels.

    Those of part ``val`` are watched, and labels of both parts serve the probe. ``cache_bytes``
    bounds this rank's decoded images in memory. Pixels are normalised by the statistics of the
    training images, or by those that the start weights were trained with.

    Raises:
        BundleError: when the start weights do not fit or can't be had.
        RunError: when a part has too few images for the number of workers, or when the training
            diverges.
    """
    device = torch.device(context.device)
    # Before images are read, which takes its time: what is wrong here needs none.
    network = build_simsiam(config, origin.weights)
    read = examples.reader(config.recipe, decode_threads(device))
    caches = open_caches(examples, read, context, cache_bytes=cache_bytes, seed=config.seed)
    share = share_of_epoch(config.batch, caches.train, context)
    preprocessing = preprocessing_of(config, caches.train, device, origin.pixels)
    network.backbone = Normalised(network.backbone, preprocessing.mean, preprocessing.std)
    if context.world_size > 1 and device.type == "cuda":
        # Batch statistics keep the method from collapsing, and a share of a batch has worse ones.
        # On a CPU there is no such layer: there each worker has those of its own images.
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    targets_N = targets_of(examples, config.probe)
    watch = Watch(config, Watched(caches, targets_N, share), device)

    def batches(epoch: int) -> Iterator[Batch]:
        watch.begin(epoch)
        return epoch_views(config, caches.train, epoch, share, device)

    learner = Learner(
        network=network,
        batches=batches,
        steps=share.steps,
        loss=watch.loss,
        validate=watch.validate,
        monitor="sound_epoch",
        val_loss="val_loss",
        set_depth=lambda _: None,
    )
    settings = LoopSettings(
        stages=config.stages,
        seed=config.seed,
        optimisation=config.optimisation,
        precision=config.precision,
    )
    progress = fit(learner, settings, context)
    return Fitted(progress, preprocessing, (*caches.train.rejects, *caches.val.rejects))


def build_simsiam(config: SimSiamConfig, start: bytes | None = None) -> SimSiam:
    """The network of a training, with the weights it starts from.

    Raises:
        BundleError: when the start weights do not fit or can't be had.
    """
    torch.manual_seed(hash_seed(config.seed))
    network = SimSiam(config.architecture, config.in_chans, pretrained=config.start == "timm")
    if start is not None:
        start_from(network.backbone, start)
    return network


def targets_of(examples: Examples, probe: ProbeSettings | None) -> NDArray[np.int64]:
    """The class of each row for the probe; `UNKNOWN` for a row that it does not take."""
    known = {} if probe is None else {name: place for place, name in enumerate(probe.classes)}
    labels = examples.rows.column("label").to_pylist()
    return np.asarray([known.get(label, UNKNOWN) for label in labels], np.int64)


def epoch_views(
    config: SimSiamConfig, cache: ImageCache, epoch: int, share: Share, device: torch.device
) -> Iterator[Batch]:
    """Two views of each image of each step, uint8 (N, C, S, S).

    The same epoch gives the same views whenever it is run. A GPU makes them itself; a CPU makes
    those of the next steps while it trains.
    """
    if device.type == "cuda":
        images = ahead(pinned(_images(config, cache, epoch, share)), depth=2)
        return _views(config, images, epoch, share, device)
    return ahead(_views(config, _images(config, cache, epoch, share), epoch, share, device), 2)


def _images(
    config: SimSiamConfig, cache: ImageCache, epoch: int, share: Share
) -> Iterator[tuple[Tensor, ...]]:
    order = epoch_order(len(cache), epoch, share.rank, config.seed)
    for step in range(share.steps):
        positions = order[step * share.batch : (step + 1) * share.batch]
        yield (torch.from_numpy(cache.images(positions)),)


def _views(
    config: SimSiamConfig,
    images: Iterator[tuple[Tensor, ...]],
    epoch: int,
    share: Share,
    device: torch.device,
) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(hash_seed(config.seed, epoch, share.rank, 1))
    for (pixels_NCSS,) in images:
        there_NCSS = pixels_NCSS.to(device, non_blocking=True)
        yield (
            make_view(there_NCSS, config.views, generator),
            make_view(there_NCSS, config.views, generator),
        )
