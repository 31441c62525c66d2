"""The moving average of a short training forgets its random start."""

import math

import pytest
from torch import nn

from workers.training.loop import _average


def _follow(ramp: int, steps: int) -> float:
    """The average of a weight that is 0 at first and 1 from then on."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = _average(network, 0.999, ramp)
    assert average is not None
    average.update_parameters(network)
    nn.init.ones_(network.weight)
    for _ in range(steps):
        average.update_parameters(network)
    return float(average.module.weight.detach())


def test_a_ramp_lets_the_average_follow_early() -> None:
    assert _follow(0, 50) == pytest.approx(1 - 0.999**50, rel=1e-4)
    expected = 0.0
    for step in range(1, 51):
        decay = 0.999 * (1 - math.exp(-step / 100))
        expected = decay * expected + (1 - decay)
    assert _follow(100, 50) == pytest.approx(expected, rel=1e-4)
    assert expected > 0.99


def test_no_decay_keeps_no_average() -> None:
    assert _average(nn.Linear(1, 1), 0.0, 100) is None
