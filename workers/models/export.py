"""Writing a network as OpenVINO IR."""

import tempfile
import warnings
from pathlib import Path

import openvino
import torch
from torch import nn

from schemas.bundle import OPENVINO_FILES


def openvino_files(network: nn.Module, channels: int, size_px: int) -> dict[str, bytes]:
    """IR of a network that takes uint8 (N, C, size, size), weights in float32, N left open."""
    example_NCHW = torch.zeros((2, channels, size_px, size_px), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        # Tracing warns of Python branches on shapes, which are fixed here but for N.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network.eval(), example_input=example_NCHW)
    model.reshape([-1, channels, size_px, size_px])
    with tempfile.TemporaryDirectory(prefix="rayward-ir-") as folder:
        xml = Path(folder) / OPENVINO_FILES[0]
        openvino.save_model(model, xml, compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in OPENVINO_FILES}
