"""A detector's scorer whose maps OpenVINO computes; boxes come from the family's own code."""

from collections.abc import Mapping
from typing import Any

import torch

from schemas.bundle import (
    BACKENDS,
    CONFIG_FILE,
    OPENVINO_FP32,
    check_files,
    parse_config,
)
from schemas.plan import ShardFunction
from workers.scoring.choice import choose_backend, choose_batch
from workers.scoring.detecting import make_detector_scorer
from workers.scoring.forward import Batched
from workers.scoring.openvino_forward import PRECISIONS, OpenVinoForward, computes_bf16


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a detector's bundle ready to score; see `workers.scoring.openvino_scorer.load`.

    Raises:
        BundleError: when files are missing or damaged, or the bundle does not fit the plan.
    """
    config = parse_config(files[CONFIG_FILE])
    asked = params.get("backend")
    backend = choose_backend(config, asked, "cpu")
    names = BACKENDS[backend].files
    check_files(config, files, names)
    ir = (files[names[0]], files[names[1]])
    if asked is None and PRECISIONS[backend] == "bf16" and not computes_bf16():
        backend = OPENVINO_FP32
    threads = int(params.get("threads", 1))
    torch.set_num_threads(threads)  # it makes boxes of the maps

    def make(batch: int) -> OpenVinoForward:
        return OpenVinoForward(ir, batch, PRECISIONS[backend], threads)

    batch = choose_batch(config, params.get("batch"), "cpu")
    return make_detector_scorer(params, config, Batched(make, batch), backend)
