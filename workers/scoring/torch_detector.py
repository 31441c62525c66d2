"""A detector's scorer on PyTorch, on a CPU or a GPU."""

from collections.abc import Mapping
from typing import Any

from schemas.bundle import BundleConfig
from schemas.plan import ShardFunction
from workers.detection.families import family_of
from workers.detection.maps import FlatMaps
from workers.models.network import load_weights
from workers.models.normalise import Normalised
from workers.scoring.detecting import make_detector_scorer
from workers.scoring.opening_torch import open_torch


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a detector's bundle ready to score; see `workers.scoring.torch_scorer.load`.

    Raises:
        BundleError: when files are missing or damaged, or the bundle does not fit the plan.
    """
    opened = open_torch(params, files, whole_detector)
    return make_detector_scorer(params, opened.config, opened.network, opened.backend)


def whole_detector(config: BundleConfig, weights: bytes) -> Normalised:
    """A detector's bundle as a network from uint8 pixels to flat maps, in eval mode.

    Raises:
        BundleError: when there is no such architecture, or the weights do not fit.
    """
    preprocessing = config.preprocessing
    family = family_of(config.family)
    options = {name: one for name, one in config.model_args.items() if name != "in_chans"}
    network = family.build(
        config.architecture, len(config.classes), preprocessing.channels, options
    )
    load_weights(network, weights)
    return Normalised(FlatMaps(network), preprocessing.mean, preprocessing.std).eval()
