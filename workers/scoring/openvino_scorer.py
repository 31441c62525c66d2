"""A scorer on OpenVINO; this module and what it imports load neither torch nor timm."""

from collections.abc import Mapping
from typing import Any

from schemas.plan import ShardFunction
from workers.scoring.opening_openvino import open_openvino
from workers.scoring.scorer import make_scorer


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a bundle ready to score on a CPU.

    ``params``: ``model_id``, ``scored_at``, and those of `open_openvino`, as are the ``files``.

    Raises:
        BundleError: when files are missing or damaged, or the bundle does not fit the plan.
    """
    opened = open_openvino(params, files)
    return make_scorer(params, opened.config, opened.network, opened.backend)
