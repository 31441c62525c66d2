"""Mixup: shares, partners, blends."""

import numpy as np
import pytest
import torch
from scipy import stats

from workers.training.mixing import blend, draw_mix


def test_shares_follow_the_beta_distribution() -> None:
    generator = np.random.default_rng(3)
    shares = [draw_mix(4, 0.4, generator).share for _ in range(2000)]
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 0.01


@pytest.mark.parametrize("count", [1, 2, 7])
def test_partners_are_a_seeded_permutation(count: int) -> None:
    one, again = (draw_mix(count, 1.0, np.random.default_rng(5)) for _ in range(2))
    assert one.share == again.share
    assert torch.equal(one.partners_N, again.partners_N)
    assert sorted(one.partners_N.tolist()) == list(range(count))


def test_blends_are_of_pixels_and_targets_alike() -> None:
    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    targets = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1]), 3)
    partners, share = torch.tensor([1, 0, 4, 2, 3]), torch.tensor(0.25)
    mixed = blend(pixels, partners, share)
    assert mixed.dtype == torch.float32
    for place, partner in enumerate(partners.tolist()):
        expected = 0.25 * pixels[place].numpy().astype(np.float64) + 0.75 * pixels[partner].numpy()
        assert np.abs(mixed[place].numpy() - expected).max() < 1e-4
    assert blend(targets, partners, share)[2].tolist() == [0.0, 0.75, 0.25]
    assert torch.equal(blend(pixels, partners, torch.tensor(1.0)), pixels.float())
