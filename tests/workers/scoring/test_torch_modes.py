"""PyTorch's backends: what they leave alone, and that they agree, on a CPU and on a GPU."""

import numpy as np
import pytest
import torch
from torch import nn

from schemas.bundle import BACKENDS, TORCH_BF16, TORCH_CUDA_FP32, TORCH_FP32
from workers.models.classifier.outputs import probabilities
from workers.models.network import build_network
from workers.models.normalise import Normalised
from workers.scoring.cuda_forward import CudaForward
from workers.scoring.torch_forward import TORCH_MODES, TorchForward, TorchMode

PIXELS = np.random.default_rng(2).integers(0, 256, (12, 3, 64, 64), dtype=np.uint8)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    return Normalised(build_network("resnet18", 3, 3), (0.5,) * 3, (0.25,) * 3).eval()


def test_every_torch_backend_has_a_mode() -> None:
    on_torch = {name for name, one in BACKENDS.items() if one.runtime == "torch"}
    assert set(TORCH_MODES) == on_torch
    assert TORCH_MODES[TORCH_FP32] == TORCH_MODES[TORCH_CUDA_FP32] == TorchMode()


def test_channels_last_moves_scores_by_rounding_only(network: nn.Module) -> None:
    plain = TorchForward(network, 12)(PIXELS)
    other = TorchForward(network, 12, TorchMode(channels_last=True))(PIXELS)
    assert np.abs(plain - other).max() < 1e-4
    with torch.inference_mode():
        expected = network(torch.from_numpy(PIXELS)).numpy()
    assert np.abs(plain - expected).max() < 1e-5


def test_weights_cast_once_give_what_autocast_gives(network: nn.Module) -> None:
    found = TorchForward(network, 12, TORCH_MODES[TORCH_BF16])(PIXELS)
    whole = network.to(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        pixels = torch.from_numpy(PIXELS).contiguous(memory_format=torch.channels_last)
        expected = whole(pixels).float().numpy()
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-6


def test_the_network_given_is_left_as_it_was(network: nn.Module) -> None:
    before = {name: one.clone() for name, one in network.state_dict().items()}
    TorchForward(network, 12, TORCH_MODES[TORCH_BF16])(PIXELS)
    for name, one in network.state_dict().items():
        assert one.dtype == before[name].dtype
        assert torch.equal(one, before[name]), name
        assert one.stride() == before[name].stride()


@pytest.mark.gpu
@pytest.mark.parametrize(
    "backend", [name for name, one in BACKENDS.items() if one.device == "cuda"]
)
def test_a_gpu_agrees_with_the_cpu(network: nn.Module, backend: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    eager = probabilities(TorchForward(network, 12)(PIXELS))
    forward = CudaForward(network, 12, TORCH_MODES[backend])
    first, again = (probabilities(forward(PIXELS)) for _ in range(2))
    other = probabilities(forward(PIXELS[::-1].copy()))
    tolerance = 1e-5 if backend == TORCH_CUDA_FP32 else 0.01
    assert np.abs(first - eager).max() <= tolerance
    # A replayed recording computes the pixels given, not those recorded.
    assert np.abs(again - first).max() <= 1e-6
    assert np.abs(other[::-1] - eager).max() <= tolerance
