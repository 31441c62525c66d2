"""The graphs of a bundle: the same network, and which layers of it stay in float32."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.bundle import OPENVINO_BF16, OPENVINO_FILES, OPENVINO_MIXED, OPENVINO_MIXED_FILES
from workers.models.export import openvino_files
from workers.models.network import build_network
from workers.models.normalise import Normalised
from workers.scoring.openvino_forward import PRECISIONS, OpenVinoForward, computes_bf16

SIDE = 64
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 1, SIDE, SIDE), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> Normalised:
    torch.manual_seed(0)
    return Normalised(build_network("resnet18", 2, 1), (0.5,), (0.25,)).eval()


@pytest.fixture(scope="module")
def files(network: Normalised) -> dict[str, bytes]:
    return openvino_files(network, 1, SIDE)


def _marked(xml: bytes) -> list[tuple[int, ...]]:
    """Shapes of the weights (O, I, H, W) of marked layers."""
    root = ET.fromstring(xml)
    layers = root.findall("layers/layer")
    marked = [one for one in layers if one.find("rt_info/attribute[@name='precise']") is not None]
    weights = [one.findall("input/port")[1].findall("dim") for one in marked]
    return [tuple(int(dim.text or 0) for dim in dims) for dims in weights]


def test_the_first_convolution_and_the_strided_points_are_marked(files: dict[str, bytes]) -> None:
    assert _marked(files[OPENVINO_FILES[0]]) == []
    assert sorted(_marked(files[OPENVINO_MIXED_FILES[0]])) == [
        (64, 1, 7, 7),
        (128, 64, 1, 1),
        (256, 128, 1, 1),
        (512, 256, 1, 1),
    ]


def test_a_mark_keeps_float32_where_the_rest_is_bfloat16(
    network: Normalised, files: dict[str, bytes]
) -> None:
    if not computes_bf16():
        pytest.skip("this CPU has no bfloat16")
    with torch.inference_mode():
        eager = network(torch.from_numpy(PIXELS)).numpy()
    weights = files[OPENVINO_FILES[1]]
    plain, mixed = files[OPENVINO_FILES[0]], files[OPENVINO_MIXED_FILES[0]]
    assert PRECISIONS[OPENVINO_BF16] == PRECISIONS[OPENVINO_MIXED] == "bf16"

    def difference(xml: bytes, precision: str) -> float:
        found = OpenVinoForward((xml, weights), 16, precision)(PIXELS)  # type: ignore[arg-type]
        return float(np.sqrt(((found - eager) ** 2).mean()))

    assert difference(mixed, "f32") < 1e-5
    assert 1e-5 < difference(mixed, "bf16") < difference(plain, "bf16")


_EXPORT = """
import torch
from workers.models.export import openvino_files
from workers.models.normalise import Normalised

assert openvino_files(Normalised(torch.nn.Conv2d(1, 2, 3), (0.5,), (0.25,)), 1, 8)
"""


def test_nothing_is_noted_in_the_home_and_nothing_sent(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    spy = tmp_path / "spy"
    spy.mkdir()
    (spy / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.addaudithook(lambda event, _: event == 'socket.connect' and sys.exit('connects'))\n"
    )
    environment = os.environ | {"HOME": str(tmp_path / "home")}
    environment["PYTHONPATH"] = os.pathsep.join([str(spy), *filter(None, sys.path)])
    subprocess.run([sys.executable, "-c", _EXPORT], env=environment, check=True)
    assert list((tmp_path / "home").rglob("*")) == []
