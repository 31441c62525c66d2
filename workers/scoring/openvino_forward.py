"""Forward passes in OpenVINO on a CPU; imports no torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from schemas.bundle import OPENVINO_BF16, OPENVINO_FP32, OPENVINO_MIXED
from workers.quiet_openvino import openvino
from workers.scoring.forward import Outputs, Pixels

OpenVinoPrecision = Literal["f32", "bf16"]

PRECISIONS: Mapping[str, OpenVinoPrecision] = MappingProxyType(
    {OPENVINO_FP32: "f32", OPENVINO_BF16: "bf16", OPENVINO_MIXED: "bf16"}
)
"""What each OpenVINO backend computes in; the mixed one's graph marks what stays in float32."""


class OpenVinoForward:
    """An IR compiled for one batch size and a fixed number of threads.

    The precision is always stated: left alone, OpenVINO takes bfloat16 where the CPU has it.
    """

    def __init__(
        self,
        files: tuple[bytes, bytes],
        batch: int,
        precision: OpenVinoPrecision = "f32",
        threads: int = 1,
    ) -> None:
        self.batch = batch
        core = openvino.Core()
        xml, weights = files
        model = core.read_model(model=xml, weights=weights)
        shape = model.input(0).partial_shape
        shape[0] = batch
        model.reshape(shape)
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": precision,
            # Several scorers share a machine; pinned, they would all sit on the first core.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = core.compile_model(model, "CPU", settings)
        self._request = self._compiled.create_infer_request()

    def __call__(self, pixels_BCHW: Pixels) -> Outputs:
        """Raw outputs (B, K)."""
        self._request.infer([pixels_BCHW], share_inputs=True)
        outputs: Outputs = np.array(self._request.get_output_tensor(0).data, dtype=np.float32)
        return outputs


def computes_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16 that OpenVINO uses."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
