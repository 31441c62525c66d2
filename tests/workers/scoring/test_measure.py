"""Measuring backends, and choosing by what was measured."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.bundle import (
    OPENVINO_BF16,
    OPENVINO_FP32,
    OPENVINO_MIXED,
    TORCH_BF16,
    TORCH_CUDA_FP16,
    TORCH_CUDA_FP32,
    TORCH_FP32,
    BackendFigures,
)
from workers.models.classifier.backends import choose_backends
from workers.models.classifier.outputs import probabilities
from workers.scoring import measure
from workers.scoring.forward import MakeForward, Pixels
from workers.scoring.measure import Candidate, Judge, choose_fastest, measure_backends

JUDGE = Judge(("no", "yes"), 1.0, None)
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 1, 2, 2), dtype=np.uint8)


class Fake:
    """A network whose answer is the first pixel, moved by some amount, after some work."""

    def __init__(self, batch: int, moved: float, work_s: float) -> None:
        self.batch = batch
        self._moved = moved
        self._work_s = work_s

    def __call__(self, pixels_BCHW: Pixels) -> NDArray[np.float32]:
        until = time.process_time() + self._work_s
        while time.process_time() < until:
            pass
        first_B = pixels_BCHW[:, 0, 0, 0].astype(np.float32) / 64 - 2
        return np.stack([first_B, -first_B + np.float32(self._moved)], axis=1)


def _fake(moved: float, work_s: float) -> Candidate:
    return Candidate(lambda batch: Fake(batch, moved, work_s), 10)


def _figures(rate: float, difference: float = 0, equal: bool = True) -> BackendFigures:
    return BackendFigures(images_per_s=rate, largest_difference=difference, labels_equal=equal)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LEAST_SECONDS", 0.01)


@pytest.mark.usefixtures("short")
def test_figures_are_rates_and_differences() -> None:
    offered = {TORCH_FP32: _fake(0, 0.004), OPENVINO_BF16: _fake(0.01, 0.001)}
    figures = measure_backends(offered, PIXELS, JUDGE).figures
    # Ten images in four milliseconds of work are 2,500 a second at most.
    assert 500 < figures[TORCH_FP32].images_per_s <= 2500
    assert figures[OPENVINO_BF16].images_per_s > 2 * figures[TORCH_FP32].images_per_s
    assert figures[TORCH_FP32] == _figures(figures[TORCH_FP32].images_per_s)
    eager, moved = (probabilities(Fake(30, by, 0)(PIXELS)) for by in (0.0, 0.01))
    expected = float(np.abs(eager - moved).max())
    assert figures[OPENVINO_BF16].largest_difference == pytest.approx(expected, abs=1e-7)
    assert 0.001 < expected < 0.005


@pytest.mark.usefixtures("short")
def test_a_backend_that_cannot_compute_the_network_is_named() -> None:
    def broken(_batch: int) -> Fake:
        raise RuntimeError("no kernel\nfor this layer")

    offered = {TORCH_FP32: _fake(0, 0), OPENVINO_MIXED: Candidate(broken, 4)}
    measured = measure_backends(offered, PIXELS, JUDGE)
    assert measured.left_out == {OPENVINO_MIXED: "RuntimeError: no kernel for this layer"}
    assert set(measured.figures) == {TORCH_FP32}
    broken_eager: dict[str, Candidate] = {TORCH_FP32: Candidate(broken, 4)}
    with pytest.raises(RuntimeError, match="no kernel"):
        measure_backends(broken_eager, PIXELS, JUDGE)


def test_the_fastest_of_a_device_that_agrees_is_chosen() -> None:
    figures = {
        TORCH_FP32: _figures(10),
        OPENVINO_FP32: _figures(20, 0.01),
        OPENVINO_BF16: _figures(40, 0.011),
        OPENVINO_MIXED: _figures(30, 0.001, equal=False),
        TORCH_CUDA_FP32: _figures(900, 1e-5),
        TORCH_CUDA_FP16: _figures(4000, 0.002),
    }
    assert choose_fastest(figures, "cpu", figures.__getitem__) == (
        OPENVINO_FP32,
        figures[OPENVINO_FP32],
    )
    on_gpu = choose_fastest(figures, "cuda", figures.__getitem__)
    assert on_gpu == (TORCH_CUDA_FP16, figures[TORCH_CUDA_FP16])
    assert choose_fastest({TORCH_FP32: figures[TORCH_FP32]}, "cuda", figures.__getitem__) is None


def test_a_choice_that_fails_on_all_images_gives_way_to_the_next() -> None:
    figures = {
        TORCH_FP32: _figures(10),
        TORCH_BF16: _figures(20, 0.004),
        OPENVINO_BF16: _figures(40, 0.009),
    }
    whole = {**figures, OPENVINO_BF16: _figures(40, 0.012), TORCH_BF16: _figures(20, 0.006)}
    asked: list[str] = []

    def confirm(name: str) -> BackendFigures:
        asked.append(name)
        return whole[name]

    assert choose_fastest(figures, "cpu", confirm) == (TORCH_BF16, whole[TORCH_BF16])
    assert asked == [OPENVINO_BF16, TORCH_BF16]


class Outlier(Fake):
    """Differs on one kind of image only: those whose second pixel is 255."""

    def __call__(self, pixels_BCHW: Pixels) -> NDArray[np.float32]:
        outputs = super().__call__(pixels_BCHW)
        outputs[pixels_BCHW[:, 0, 0, 1] == 255, 0] += 3
        return outputs


@pytest.mark.usefixtures("short")
def test_the_chosen_backend_agrees_on_images_beyond_the_sample() -> None:
    pixels = np.zeros((1500, 1, 2, 2), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(1500) % 256
    sampled = set(np.linspace(0, 1499, 1000, dtype=np.int64).tolist())
    beyond = next(row for row in range(1500) if row not in sampled)
    pixels[beyond, 0, 0, 1] = 255
    plain: MakeForward = lambda batch: Fake(batch, 0, 0.002)  # noqa: E731
    swift: Callable[[int], Fake] = lambda batch: Outlier(batch, 0, 0)  # noqa: E731
    offered = {TORCH_FP32: Candidate(plain, 50), OPENVINO_BF16: Candidate(swift, 50)}
    eager_NC = probabilities(Fake(1500, 0, 0)(pixels))
    choice = choose_backends(offered, pixels, eager_NC, JUDGE)
    assert choice.backend == TORCH_FP32
    assert choice.figures[OPENVINO_BF16].largest_difference > 0.01
    assert choice.gpu_backend == TORCH_CUDA_FP32
