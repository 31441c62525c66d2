"""RandAugment against torchvision's own."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandAugment as FirstRandAugment
from torchvision.transforms.v2 import RandAugment

from workers.training.augment import augment
from workers.training.config import Augmentation
from workers.training.randaugment import OPERATIONS, magnitudes, randaugment


def _pictures(count: int, channels: int, side: int = 40) -> Tensor:
    small = torch.rand(count, channels, 7, 7, generator=_seeded(1))
    return (torch.nn.functional.interpolate(small, (side, side), mode="bicubic") * 255).byte()


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_operations_and_magnitudes_are_those_of_torchvision() -> None:
    ours = magnitudes(224)
    theirs = FirstRandAugment()._augmentation_space(31, (224, 224))
    assert len(ours) == 14
    assert list(ours) == list(theirs) == list(OPERATIONS)
    for name, (steps, signed) in theirs.items():
        assert ours[name][1] == signed, name
        if steps.ndim:
            assert torch.equal(ours[name][0].float(), steps.float()), name
        else:
            assert not len(ours[name][0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("operations", "magnitude"), [(2, 9), (1, 30), (3, 0)])
def test_draws_equal_those_of_torchvision(channels: int, operations: int, magnitude: int) -> None:
    pixels = _pictures(40, channels)
    found = randaugment(pixels, operations, magnitude, _seeded(17))
    assert torch.equal(found, _expected(pixels, 17, operations, magnitude))
    assert found.dtype == torch.uint8
    changed = [not torch.equal(one, other) for one, other in zip(found, pixels, strict=True)]
    assert sum(changed) > 10


def _expected(pixels: Tensor, seed: int, operations: int = 2, magnitude: int = 9) -> Tensor:
    theirs = RandAugment(operations, magnitude)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([theirs(image) for image in pixels])


def test_draws_equal_those_of_torchvision_on_real_slices(shared_data: Path) -> None:
    files = sorted((shared_data / "ct-iqothnccd" / "benign").glob("*.jpg"))[:12]
    assert len(files) == 12
    slices = [cv2.resize(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), (96, 96)) for file in files]
    pixels = torch.from_numpy(np.stack(slices))[:, None]
    assert torch.equal(randaugment(pixels, 2, 9, _seeded(23)), _expected(pixels, 23))


def test_every_operation_is_drawn_about_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def counting(name: str) -> object:
        def change(image: Tensor, _: float) -> Tensor:
            drawn.append(name)
            return image

        return change

    counted = {name: counting(name) for name in OPERATIONS}
    monkeypatch.setattr("workers.training.randaugment.OPERATIONS", counted)
    randaugment(_pictures(700, 1, 8), 2, 9, _seeded(2))
    counts = np.array([drawn.count(name) for name in OPERATIONS])
    assert counts.sum() == 1400
    assert counts.min() > 60
    assert counts.max() < 145


def test_the_process_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, again = (randaugment(_pictures(8, 1), 2, 9, _seeded(3)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, randaugment(_pictures(8, 1), 2, 9, _seeded(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_randaugment_comes_after_the_other_changes() -> None:
    pixels = _pictures(6, 1)
    moved = Augmentation(translate=0.2, contrast=0.2)
    both = Augmentation(translate=0.2, contrast=0.2, randaugment=(2, 9))
    generator = _seeded(5)
    expected = randaugment(augment(pixels, moved, generator), 2, 9, generator)
    assert torch.equal(augment(pixels, both, _seeded(5)), expected)
