"""Writing a network as OpenVINO IR."""

import tempfile
import warnings
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from schemas.bundle import OPENVINO_FILES, OPENVINO_MIXED_FILES
from workers.quiet_openvino import openvino

_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})
_FIRST = _CONVOLUTIONS | {"MatMul"}


def openvino_files(network: nn.Module, channels: int, size_px: int) -> dict[str, bytes]:
    """IR of a network that takes uint8 (N, C, size, size), weights in float32, N left open.

    Two graphs share the weights: a plain one, and one for mixed precision (see `mixed_graph`).
    """
    example_NCHW = torch.zeros((2, channels, size_px, size_px), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        # Tracing warns of Python branches on shapes, which are fixed here but for N.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network.eval(), example_input=example_NCHW)
    model.reshape([-1, channels, size_px, size_px])
    with tempfile.TemporaryDirectory(prefix="rayward-ir-") as folder:
        xml = Path(folder) / OPENVINO_FILES[0]
        openvino.save_model(model, xml, compress_to_fp16=False)
        files = {name: (Path(folder) / name).read_bytes() for name in OPENVINO_FILES}
    return files | {OPENVINO_MIXED_FILES[0]: mixed_graph(files[OPENVINO_FILES[0]])}


def mixed_graph(xml: bytes) -> bytes:
    """The same IR, whose cheap and touchy layers are marked to stay in float32.

    Marked are the first convolution, which bfloat16 would feed with pixels of 8 bits rounded
    again after normalisation, and strided 1 x 1 convolutions, whose rounding lands on the
    residual stream as it is. Measured on a ResNet-18 of one channel, they are a few per cent of
    its multiplications and up to half of its difference from float32. The mark is OpenVINO's
    ``precise`` (DisableFP16Compression), which its CPU plugin keeps for bfloat16 too.
    """
    # The graph comes from OpenVINO itself or from a bundle's file whose digest was checked.
    root = ET.fromstring(xml)  # noqa: S314
    for layer in _touchy(root):
        info = layer.find("rt_info")
        if info is None:
            info = ET.SubElement(layer, "rt_info")
        ET.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    return ET.tostring(root)


def _touchy(root: ET.Element) -> Iterator[ET.Element]:
    layers = {str(one.get("id")): one for one in root.iterfind("layers/layer")}
    after: dict[str, list[str]] = defaultdict(list)
    for edge in root.iterfind("edges/edge"):
        after[str(edge.get("from-layer"))].append(str(edge.get("to-layer")))
    first: set[str] = set()
    seen: set[str] = set()
    waiting = [number for number, one in layers.items() if one.get("type") == "Parameter"]
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        if layers[number].get("type") in _FIRST:
            first.add(number)
        else:
            waiting += after[number]
    for number, layer in layers.items():
        if number in first or (layer.get("type") in _CONVOLUTIONS and _strided_point(layer)):
            yield layer


def _strided_point(layer: ET.Element) -> bool:
    data = layer.find("data")
    strides = (data.get("strides", "") if data is not None else "").split(",")
    kernel = [int(one.text or 0) for one in layer.findall("input/port")[1].findall("dim")][-2:]
    return kernel == [1, 1] and any(int(one) > 1 for one in strides if one.strip())
