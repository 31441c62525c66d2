"""A scorer on PyTorch, on a CPU or a GPU."""

from collections.abc import Mapping
from typing import Any

import torch

from schemas.bundle import CONFIG_FILE, WEIGHTS_FILE, check_files, parse_config
from schemas.plan import ShardFunction
from workers.models.classifier.heads import bundle_network
from workers.scoring.choice import choose_backend, choose_batch
from workers.scoring.cuda_forward import make_forward
from workers.scoring.forward import Batched, Forward
from workers.scoring.scorer import make_scorer


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a bundle ready to score.

    ``params``: ``model_id``, ``scored_at``, perhaps ``batch``, ``backend`` (or null for the
    bundle's own), ``device`` and ``threads``. ``files``: the bundle's `config.json` and weights.

    Raises:
        BundleError: when files are missing or damaged, or the bundle does not fit the plan.
    """
    device = str(params.get("device", "cpu"))
    config = parse_config(files[CONFIG_FILE])
    backend = choose_backend(config, params.get("backend"), device)
    check_files(config, files, (WEIGHTS_FILE,))
    if device == "cpu":
        torch.set_num_threads(int(params.get("threads", 1)))
    whole, _ = bundle_network(config, files[WEIGHTS_FILE])

    def make(batch: int) -> Forward:
        return make_forward(whole, backend, batch, device)

    batch = choose_batch(config, params.get("batch"), device)
    return make_scorer(params, config, Batched(make, batch), backend)
