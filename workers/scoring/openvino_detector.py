"""A detector's scorer whose maps OpenVINO computes; boxes come from the family's own code."""

from collections.abc import Mapping
from typing import Any

import torch

from schemas.plan import ShardFunction
from workers.scoring.detecting import make_detector_scorer
from workers.scoring.opening_openvino import open_openvino


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a detector's bundle ready to score; see `workers.scoring.openvino_scorer.load`.

    Raises:
        BundleError: when files are missing or damaged, or the bundle does not fit the plan.
    """
    opened = open_openvino(params, files)
    torch.set_num_threads(int(params.get("threads", 1)))  # it makes boxes of the maps
    return make_detector_scorer(params, opened.config, opened.network, opened.backend)
