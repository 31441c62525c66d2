"""Opening a bundle whose network OpenVINO computes on a CPU; imports no torch."""

from collections.abc import Mapping
from typing import Any

from schemas.bundle import BACKENDS, CONFIG_FILE, OPENVINO_FP32, check_files, parse_config
from workers.scoring.choice import choose_backend, choose_batch
from workers.scoring.forward import Batched
from workers.scoring.opened import Opened
from workers.scoring.openvino_forward import PRECISIONS, OpenVinoForward, computes_bf16


def open_openvino(params: Mapping[str, Any], files: Mapping[str, bytes]) -> Opened:
    """Make a bundle's network ready for a CPU.

    ``params``: perhaps ``batch``, ``backend`` (or null for the bundle's own) and ``threads``.
    ``files``: the bundle's `config.json` and the backend's IR. Where the bundle's own choice is
    bfloat16 and this CPU can't compute in it, float32 takes its place: emulated, bfloat16 is
    several times slower.

    Raises:
        BundleError: when files are missing or damaged.
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
    return Opened(config, Batched(make, batch), backend)
