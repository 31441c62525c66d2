"""A network that has learned to see lesions points at them; one that has not does not."""

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from workers.explain.gradcam import heat_maps
from workers.explain.mapping import Placement
from workers.explain.pointing import Finding, find
from workers.pixels.recipe import Geometry

SIDE = 64


def _scenes(count: int, seed: int) -> tuple[Tensor, list[NDArray[np.bool_]]]:
    """Noise with a bright vessel; every other one has a bright round lesion as well."""
    generator = np.random.default_rng(seed)
    views, masks = [], []
    for number in range(count):
        view = generator.normal(0, 0.3, (SIDE, SIDE)).astype(np.float32)
        start, stop = generator.integers(4, SIDE - 4, (2, 2))
        cv2.line(view, tuple(map(int, start)), tuple(map(int, stop)), 1.5, 2)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if number % 2:
            cv2.circle(mask, tuple(map(int, generator.integers(13, SIDE - 13, 2))), 12, 1, -1)
            view[mask > 0] += 1.5
        views.append(view)
        masks.append(mask > 0)
    return torch.from_numpy(np.stack(views))[:, None], masks


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((1, 12), (12, 24), (24, 24)):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(
        nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 2)
    )


def _train(network: nn.Module) -> None:
    images, _ = _scenes(512, 1)
    labels = torch.arange(512) % 2
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        for places in torch.randperm(512, generator=generator).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[places]), labels[places]).backward()
            optimizer.step()


def _findings(network: nn.Sequential, method: str) -> list[Finding]:
    images, masks = _scenes(60, 2)
    maps = heat_maps(network.eval(), network[0], images, [1] * 60, method)  # type: ignore[arg-type]
    place = Placement(Geometry(1, 1, 0, 0), SIDE, SIDE, SIDE)
    return [find(heat, place, masks[n]) for n, heat in enumerate(maps.heat_Nhw) if n % 2]


@pytest.mark.slow
def test_learning_moves_the_heat_onto_lesions() -> None:
    torch.set_num_threads(1)
    methods = ("gradcam", "gradcam++")
    network = _network()
    before = {method: _findings(network, method) for method in methods}
    _train(network.train())
    images, _ = _scenes(60, 2)
    said = network.eval()(images).argmax(dim=1)
    assert (said == torch.arange(60) % 2).float().mean() > 0.9
    for method in methods:
        after = _findings(network, method)
        chance = np.mean([one.region_share for one in after])
        hits, energy = _means(after)
        untrained_hits, untrained_energy = _means(before[method])
        assert hits > 0.9 and hits > untrained_hits + 0.2
        assert energy > 4 * chance and energy > 2 * untrained_energy


def _means(findings: list[Finding]) -> tuple[float, float]:
    """Hit rate and mean energy inside; a map without heat hits nothing."""
    hits = [one.pointing_hit is True for one in findings]
    return float(np.mean(hits)), float(np.mean([one.energy_inside or 0.0 for one in findings]))
