"""What is watched while SimSiam trains: its loss, its spread, and the classes of neighbours.

Suffixes: N images, C channels, S side of an image, D numbers of a feature vector.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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

        ``spread`` is the mean over the epoch's batches, as the method's authors have it. Of
        validation images, in evaluation mode: their loss ``val_loss``, and how far embeddings and
        the backbone's features spread, ``val_spread`` and ``feature_spread``. ``sound_epoch``
        counts the epochs up to this one, or is 0 where it has collapsed.
        """
        figures = {"spread": float(ranks.average(torch.stack(self._spreads)).mean())}
        with full_float32():
            figures |= self._validated(network)
            if self._config.probe is not None and self._is_due(self._config.probe):
                figures |= self._probed(network, self._config.probe)
        return figures | {"sound_epoch": float(self._epoch + 1) * (figures["spread"] >= COLLAPSED)}

    def _validated(self, network: nn.Module) -> dict[str, float]:
        cache, rank = self._watched.caches.val, self._watched.share.rank
        chosen = np.arange(min(len(cache), max(MOST_WATCHED // self._ranks(), 1)))
        # The same views in every epoch, so that epochs can be compared.
        generator = torch.Generator().manual_seed(hash_seed(self._config.seed, rank, 7))
        found: tuple[list[Tensor], ...] = ([], [], [])
        for positions in _parts(chosen, self._watched.share.batch):
            pixels_NCSS = torch.from_numpy(cache.images(positions)).to(self._device)
            features, sides = zip(*self._two_views(network, pixels_NCSS, generator), strict=True)
            rows = image_losses(*sides)[:, None], sides[0].embeddings_ND, features[0]
            for known, one in zip(found, rows, strict=True):
                known.append(one)
        losses_N1, embeddings_ND, features_ND = (self._gather(one) for one in found)
        return {
            "val_loss": float(losses_N1.mean()),
            "val_spread": float(spread(torch.from_numpy(embeddings_ND))),
            "feature_spread": float(spread(torch.from_numpy(features_ND))),
        }

    def _two_views(
        self, network: nn.Module, pixels_NCSS: Tensor, generator: Generator
    ) -> Iterator[tuple[Tensor, Sides]]:
        """The features of two views of each image, and what becomes of them."""
        backbone: nn.Module = network.get_submodule("backbone")
        project: Callable[[Tensor], Sides] = network.project  # type: ignore[assignment]
        for _ in range(2):
            features_ND = backbone(make_view(pixels_NCSS, self._config.views, generator))
            yield features_ND, project(features_ND)

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
        chosen = np.flatnonzero(targets_N != UNKNOWN)[: max(MOST_PROBED // self._ranks(), 1)]
        rows = []
        for positions in _parts(chosen, self._watched.share.batch):
            features_ND = backbone(torch.from_numpy(cache.images(positions)).to(self._device))
            classes_N1 = torch.from_numpy(targets_N[positions, None]).to(features_ND)
            rows.append(torch.cat([classes_N1, features_ND], dim=1))
        return self._gather(rows)

    def _gather(self, parts: Sequence[Tensor]) -> NDArray[np.float64]:
        """The rows of all ranks; a rank without images has none."""
        width = max(ranks.gather_counts(parts[0].shape[1] if parts else 0, self._device))
        own = [one.double().cpu().numpy() for one in parts]
        return ranks.gather_rows(np.concatenate([np.zeros((0, width)), *own]), self._device)

    def _ranks(self) -> int:
        return len(ranks.gather_counts(0, self._device))


def _parts(positions: Indices, size: int) -> list[Indices]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]
