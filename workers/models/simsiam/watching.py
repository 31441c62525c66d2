"""What is watched while SimSiam trains: its loss, its spread, and the classes of neighbours.

Suffixes: N images, C channels, S side of an image, D numbers of a feature vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from workers.metrics.knn import nearest_class
from workers.models.simsiam.config import ProbeSettings, SimSiamConfig
from workers.models.simsiam.network import (
    COLLAPSED,
    Sides,
    image_losses,
    similarity_loss,
    spread,
)
from workers.models.simsiam.views import make_view
from workers.scoring.cuda_forward import full_float32
from workers.training import ranks
from workers.training.data import ImageCache, Indices
from workers.training.feeding import Caches, Share
from workers.training.loop import Batch, hash_seed

MOST_WATCHED = 2048
"""Validation images, of all ranks, on which loss and spread rest at most: each is 2048 numbers."""
MOST_PROBED = 20_000
"""Images of a part, of all ranks, that take part in a probe at most."""
UNKNOWN = -1
"""Target of an image without a class."""

Targets = NDArray[np.int64]


@dataclass(frozen=True)
class Watched:
    """This rank's images, and the class of every row of the plan."""

    caches: Caches
    targets: Targets
    share: Share


class Watch:
    """The loss of batches and the figures of epochs, with what is known of an epoch between them.

    Which epoch is kept depends on no label: it is the last one without a collapse.
    """

    def __init__(self, config: SimSiamConfig, watched: Watched, device: torch.device) -> None:
        self._config, self._watched, self._device = config, watched, device
        self._epoch = 0
        self._spreads: list[Tensor] = []

    def begin(self, epoch: int) -> None:
        """Note which epoch begins, counted from 0."""
        self._epoch, self._spreads = epoch, []

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The loss of two views of each image; notes how far embeddings spread."""
        first_NCSS, second_NCSS = batch
        first, second = network(first_NCSS, second_NCSS)
        with torch.autocast(first_NCSS.device.type, enabled=False):
            self._spreads.append(spread(first.embeddings_ND))
            return similarity_loss(first, second)

    def validate(self, network: nn.Module) -> Mapping[str, float]:
        """The figures of the epoch that has just been trained, equal on every rank.

        ``spread`` is the mean over the epoch's batches, as the method's authors have it;
        ``val_spread`` that of validation images, and ``val_loss`` their loss, in evaluation mode.
        ``sound_epoch`` counts the epochs up to this one, or is 0 where it has collapsed.
        """
        figures = {"spread": float(ranks.average(torch.stack(self._spreads)).mean())}
        with full_float32():
            figures |= self._validated(network)
            if self._config.probe is not None and self._is_due(self._config.probe):
                figures |= self._probed(network, self._config.probe)
        sound = min(figures["spread"], figures["val_spread"]) >= COLLAPSED
        return figures | {"sound_epoch": float(self._epoch + 1) * sound}

    def _validated(self, network: nn.Module) -> dict[str, float]:
        cache = self._watched.caches.val
        world = len(ranks.gather_counts(0, self._device))
        chosen = np.arange(min(len(cache), max(MOST_WATCHED // world, 1)))
        # The same views in every epoch, so that epochs can be compared.
        rank = self._watched.share.rank
        generator = torch.Generator().manual_seed(hash_seed(self._config.seed, rank, 7))
        rows = [np.zeros((0, 1))]
        vectors: list[NDArray[np.float64]] = []
        for positions in _parts(chosen, self._watched.share.batch):
            pixels_NCSS = torch.from_numpy(cache.images(positions)).to(self._device)
            first, second = self._sides(network, pixels_NCSS, generator)
            rows.append(_array(image_losses(first, second)[:, None]))
            vectors.append(_array(first.embeddings_ND))
        losses_N1 = ranks.gather_rows(np.concatenate(rows), self._device)
        width = _width(vectors, self._device)
        found_ND = ranks.gather_rows(np.concatenate([np.zeros((0, width)), *vectors]), self._device)
        return {
            "val_loss": float(losses_N1.mean()),
            "val_spread": float(spread(torch.from_numpy(found_ND))),
        }

    def _sides(
        self, network: nn.Module, pixels_NCSS: Tensor, generator: Generator
    ) -> tuple[Sides, Sides]:
        views = self._config.views
        first_NCSS = make_view(pixels_NCSS, views, generator)
        sides: tuple[Sides, Sides] = network(first_NCSS, make_view(pixels_NCSS, views, generator))
        return sides

    def _is_due(self, probe: ProbeSettings) -> bool:
        done = self._epoch + 1
        return done % probe.every == 0 or done == self._config.epochs

    def _probed(self, network: nn.Module, probe: ProbeSettings) -> dict[str, float]:
        backbone = network.get_submodule("backbone")
        known, asked = (
            self._features(backbone, one)
            for one in (self._watched.caches.train, self._watched.caches.val)
        )
        if not len(known) or not len(asked):
            return {}
        found_N = nearest_class(
            known[:, 1:], known[:, 0].astype(np.int64), asked[:, 1:], probe.neighbours
        )
        return {"probe_accuracy": float((found_N == asked[:, 0]).mean())}

    def _features(self, backbone: nn.Module, cache: ImageCache) -> NDArray[np.float64]:
        """Class and feature vector of every image of a part that has a class, (N, 1 + D)."""
        targets_N = self._watched.targets[cache.rows]
        world = len(ranks.gather_counts(0, self._device))
        chosen = np.flatnonzero(targets_N != UNKNOWN)[: max(MOST_PROBED // world, 1)]
        vectors = [
            _array(backbone(torch.from_numpy(cache.images(positions)).to(self._device)))
            for positions in _parts(chosen, self._watched.share.batch)
        ]
        width = _width(vectors, self._device)
        own_ND = np.concatenate([np.zeros((0, width)), *vectors])
        rows = np.concatenate([targets_N[chosen, None], own_ND], axis=1)
        return ranks.gather_rows(rows, self._device)


def _parts(positions: Indices, size: int) -> list[Indices]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def _array(values_ND: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values_ND.double().cpu().numpy()
    return found


def _width(vectors: list[NDArray[np.float64]], device: torch.device) -> int:
    """Numbers of a vector, also on a rank that has none."""
    return max(ranks.gather_counts(vectors[0].shape[1] if vectors else 0, device))
