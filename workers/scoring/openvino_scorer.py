"""A scorer on OpenVINO; this module and what it imports load neither torch nor timm."""

from collections.abc import Mapping
from typing import Any

from schemas.bundle import (
    BACKENDS,
    CONFIG_FILE,
    OPENVINO_FP32,
    check_files,
    parse_config,
)
from schemas.plan import ShardFunction
from workers.scoring.choice import choose_backend, choose_batch
from workers.scoring.forward import Batched
from workers.scoring.openvino_forward import PRECISIONS, OpenVinoForward, computes_bf16
from workers.scoring.scorer import make_scorer


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a bundle ready to score on a CPU.

    ``params``: ``model_id``, ``scored_at``, perhaps ``batch``, ``backend`` (or null for the
    bundle's own) and ``threads``. ``files``: the bundle's `config.json` and the backend's IR.
    Where the bundle's own choice is bfloat16 and this CPU can't compute in it, float32 takes its
    place: emulated, bfloat16 is several times slower.

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

    def make(batch: int) -> OpenVinoForward:
        return OpenVinoForward(ir, batch, PRECISIONS[backend], threads)

    batch = choose_batch(config, params.get("batch"), "cpu")
    return make_scorer(params, config, Batched(make, batch), backend)
