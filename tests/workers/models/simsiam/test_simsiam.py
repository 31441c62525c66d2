"""SimSiam's loss, its spread and its views, against references computed here."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from workers.models.simsiam.network import EMBEDDING, Sides, SimSiam, similarity_loss, spread
from workers.models.simsiam.views import Views, _blur, make_view

STILL = Views(smallest_crop=1.0, tone=0.0, blur_chance=0.0, flip=False)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 4, side: int = 56) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, side, side), generator=generator(9)).to(torch.uint8)


def test_the_loss_is_the_papers() -> None:
    random = np.random.default_rng(0)
    p1, z1, p2, z2 = random.normal(size=(4, 6, 8))

    def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    expected = -(cosine(p1, z2) + cosine(p2, z1)).mean() / 2
    sides = [Sides(torch.from_numpy(z), torch.from_numpy(p)) for z, p in ((z1, p1), (z2, p2))]
    assert similarity_loss(*sides).item() == pytest.approx(expected, abs=1e-6)
    same = Sides(torch.ones(3, 4), torch.ones(3, 4) * 7)
    assert similarity_loss(same, same).item() == pytest.approx(-1)


def test_no_gradient_flows_through_the_side_that_is_predicted() -> None:
    network = SimSiam("resnet18", channels=1)
    first, second = network(torch.randn(4, 1, 32, 32), torch.randn(4, 1, 32, 32))
    assert not first.embeddings_ND.requires_grad
    assert first.predictions_ND.shape == (4, EMBEDDING)
    similarity_loss(first, second).backward()
    assert all(one.grad is not None for one in network.parameters()), "DDP waits for every one"
    last = network.projector[-1]
    assert isinstance(last, torch.nn.BatchNorm1d)
    assert not last.affine


def test_spread_is_1_in_all_directions_and_0_after_a_collapse() -> None:
    everywhere = torch.randn(2000, 256, generator=generator())
    assert spread(everywhere).item() == pytest.approx(1.0, abs=0.01)
    one = torch.randn(1, 256, generator=generator())
    assert spread(one.expand(50, 256)).item() == pytest.approx(0.0, abs=1e-9)
    two = torch.cat([one.expand(25, 256), -one.expand(25, 256)])
    assert spread(two).item() == pytest.approx(
        (one / one.norm()).abs().mean().item() * math.sqrt(256), abs=1e-6
    )


def test_a_view_without_changes_is_the_image() -> None:
    assert torch.equal(make_view(images(), STILL, generator()), images())


def test_views_differ_and_come_back_with_their_seed() -> None:
    first = make_view(images(), Views(), generator(1))
    assert first.dtype == torch.uint8
    assert first.shape == images().shape
    assert torch.equal(first, make_view(images(), Views(), generator(1)))
    assert not torch.equal(first, make_view(images(), Views(), generator(2)))


def test_a_crop_shows_a_part_of_the_image() -> None:
    # Values rise to the right and downwards, so a pixel's value says where it comes from.
    side = 64
    ramp = torch.arange(side).float() * 3
    across, down = ramp.view(1, 1, 1, -1).expand(64, 1, side, side), ramp.view(1, 1, -1, 1)
    crop = Views(smallest_crop=0.2, tone=0.0, blur_chance=0.0, flip=False)
    found = make_view(across.to(torch.uint8), crop, generator(3)).float()
    widths = (found[:, 0, 10, -1] - found[:, 0, 10, 0]) / ramp[-1]
    found = make_view(down.expand(64, 1, side, side).to(torch.uint8), crop, generator(3)).float()
    heights = (found[:, 0, -1, 10] - found[:, 0, 0, 10]) / ramp[-1]
    areas = (widths * heights).numpy()
    assert areas.min() > 0.15
    assert areas.max() <= 1.0
    assert areas.min() < 0.35, "small parts are drawn"
    assert areas.max() > 0.8, "and large ones"
    shapes = (widths / heights).numpy()
    assert 0.65 < shapes.min() < 0.85
    assert 1.2 < shapes.max() < 1.55


def test_flips_mirror_about_half_of_the_images() -> None:
    flip = Views(smallest_crop=1.0, tone=0.0, blur_chance=0.0, flip=True)
    many = images().repeat(50, 1, 1, 1)
    found = make_view(many, flip, generator(5))
    mirrored = (found == many.flip(3)).flatten(1).all(dim=1)
    as_it_is = (found == many).flatten(1).all(dim=1)
    assert bool((mirrored ^ as_it_is).all())
    assert 70 < int(mirrored.sum()) < 130


def test_the_blur_is_a_gaussian() -> None:
    blur = Views(smallest_crop=1.0, tone=0.0, blur_chance=1.0, flip=False)
    big = images(6, 112)
    found = _blur(big.float(), blur, generator(4)).numpy()
    drawn = generator(4)
    torch.rand(6, generator=drawn)  # whether an image is blurred at all
    sigmas = (0.1 + 1.9 * torch.rand(6, generator=drawn)) * 112 / 224
    for image, sigma in enumerate(sigmas.tolist()):
        expected = gaussian_filter(big[image, 0].numpy().astype(float), sigma, mode="nearest")
        np.testing.assert_allclose(found[image, 0], expected, atol=0.5)
    assert sigmas.max() > 0.7, "the test sees a blur"
