"""Opening a bundle whose network PyTorch computes, on a CPU or a GPU; imports no OpenVINO."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from schemas.bundle import CONFIG_FILE, WEIGHTS_FILE, BundleConfig, check_files, parse_config
from workers.scoring.choice import choose_backend, choose_batch
from workers.scoring.cuda_forward import make_forward
from workers.scoring.forward import Batched, Forward
from workers.scoring.opened import Opened

Build = Callable[[BundleConfig, bytes], nn.Module]
"""Makes a bundle's network, from uint8 pixels on, of its configuration and weights."""


def open_torch(params: Mapping[str, Any], files: Mapping[str, bytes], build: Build) -> Opened:
    """Make a bundle's network ready for a CPU or a GPU.

    ``params``: perhaps ``batch``, ``backend`` (or null for the bundle's own), ``device`` and
    ``threads``. ``files``: the bundle's `config.json` and weights.

    Raises:
        BundleError: when files are missing or damaged.
    """
    device = str(params.get("device", "cpu"))
    config = parse_config(files[CONFIG_FILE])
    backend = choose_backend(config, params.get("backend"), device)
    check_files(config, files, (WEIGHTS_FILE,))
    if device == "cpu":
        torch.set_num_threads(int(params.get("threads", 1)))
    whole = build(config, files[WEIGHTS_FILE])

    def make(batch: int) -> Forward:
        return make_forward(whole, backend, batch, device)

    batch = choose_batch(config, params.get("batch"), device)
    return Opened(config, Batched(make, batch), backend)
