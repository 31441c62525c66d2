"""A detector's scorer on PyTorch, on a CPU or a GPU."""

from collections.abc import Mapping
from typing import Any

import torch

from schemas.bundle import CONFIG_FILE, WEIGHTS_FILE, BundleConfig, check_files, parse_config
from schemas.plan import ShardFunction
from workers.detection.families import family_of
from workers.detection.maps import FlatMaps
from workers.models.network import load_weights
from workers.models.normalise import Normalised
from workers.scoring.choice import choose_backend, choose_batch
from workers.scoring.cuda_forward import make_forward
from workers.scoring.detecting import make_detector_scorer
from workers.scoring.forward import Batched, Forward


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a detector's bundle ready to score; see `workers.scoring.torch_scorer.load`.

    Raises:
        BundleError: when files are missing or damaged, or the bundle does not fit the plan.
    """
    device = str(params.get("device", "cpu"))
    config = parse_config(files[CONFIG_FILE])
    backend = choose_backend(config, params.get("backend"), device)
    check_files(config, files, (WEIGHTS_FILE,))
    if device == "cpu":
        torch.set_num_threads(int(params.get("threads", 1)))
    whole = whole_detector(config, files[WEIGHTS_FILE])

    def make(batch: int) -> Forward:
        return make_forward(whole, backend, batch, device)

    batch = choose_batch(config, params.get("batch"), device)
    return make_detector_scorer(params, config, Batched(make, batch), backend)


def whole_detector(config: BundleConfig, weights: bytes) -> Normalised:
    """A detector's bundle as a network from uint8 pixels to flat maps, in eval mode.

    Raises:
        BundleError: when there is no such architecture, or the weights do not fit.
    """
    preprocessing = config.preprocessing
    family = family_of(config.family)
    network = family.build(config.architecture, len(config.classes), preprocessing.channels)
    load_weights(network, weights)
    return Normalised(FlatMaps(network), preprocessing.mean, preprocessing.std).eval()
