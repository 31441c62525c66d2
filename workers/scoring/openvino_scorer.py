"""A scorer on OpenVINO; this module and what it imports load neither torch nor timm."""

from collections.abc import Mapping
from typing import Any

from schemas.bundle import CONFIG_FILE, OPENVINO_BF16, OPENVINO_FILES, check_files, parse_config
from schemas.plan import ShardFunction
from workers.scoring.choice import choose_backend
from workers.scoring.openvino_forward import OpenVinoForward, OpenVinoPrecision
from workers.scoring.scorer import make_scorer


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a bundle ready to score on a CPU.

    ``params``: ``model_id``, ``scored_at``, perhaps ``batch``, ``backend`` (or null for the
    bundle's own) and ``threads``. ``files``: the bundle's `config.json` and IR.

    Raises:
        BundleError: when files are missing or damaged, or the bundle does not fit the plan.
    """
    config = parse_config(files[CONFIG_FILE])
    backend = choose_backend(config, params.get("backend"), "cpu")
    check_files(config, files, OPENVINO_FILES)
    ir = (files[OPENVINO_FILES[0]], files[OPENVINO_FILES[1]])
    precision: OpenVinoPrecision = "bf16" if backend == OPENVINO_BF16 else "f32"
    threads = int(params.get("threads", 1))

    def make(batch: int) -> OpenVinoForward:
        return OpenVinoForward(ir, batch, precision, threads)

    return make_scorer(params, config, make, backend)
