"""A scorer on PyTorch, on a CPU or a GPU."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from schemas.bundle import BundleConfig
from schemas.plan import ShardFunction
from workers.models.classifier.heads import bundle_network
from workers.scoring.opening_torch import open_torch
from workers.scoring.scorer import make_scorer


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a bundle ready to score.

    ``params``: ``model_id``, ``scored_at``, and those of `open_torch`, as are the ``files``.

    Raises:
        BundleError: when files are missing or damaged, or the bundle does not fit the plan.
    """
    opened = open_torch(params, files, _whole)
    return make_scorer(params, opened.config, opened.network, opened.backend)


def _whole(config: BundleConfig, weights: bytes) -> nn.Module:
    whole, _ = bundle_network(config, weights)
    return whole
