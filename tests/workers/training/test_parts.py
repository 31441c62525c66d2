"""Data, augmentation, optimisation and configuration, each on its own."""

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as reference

from schemas.errors import RejectedImage
from schemas.plan import Blob
from schemas.reasons import RejectReason
from workers.prefetch import ahead
from workers.training.augment import affine_matrices, augment
from workers.training.config import EVERY_BLOCK, Augmentation, Optimisation, Stage, TrainConfig
from workers.training.data import Image, ImageCache, Indices, epoch_order, own_rows
from workers.training.examples import Examples
from workers.training.loop import hash_seed
from workers.training.memory import image_bytes
from workers.training.optimisation import learning_rate, make_optimiser


class Reader:
    """Image ``i`` is filled with ``i``; some can't be read; counts what it reads."""

    def __init__(self, broken: frozenset[int] = frozenset()) -> None:
        self.broken, self.read = broken, 0

    def __call__(self, rows: Indices) -> list[Image | RejectedImage]:
        self.read += len(rows)
        return [
            RejectedImage(RejectReason.CORRUPT)
            if row in self.broken
            else np.full((1, 4, 4), row, np.uint8)
            for row in rows.tolist()
        ]


def test_ranks_share_rows_without_overlap() -> None:
    rows = range(100, 133)
    parts = [own_rows(rows, rank, 4, seed=3) for rank in range(4)]
    assert sorted(np.concatenate(parts).tolist()) == list(rows)
    assert {len(part) for part in parts} == {8, 9}
    assert (own_rows(rows, 1, 4, seed=3) == parts[1]).all()
    assert sorted(own_rows(rows, 1, 4, seed=4)) != sorted(parts[1])


def test_order_is_fresh_each_epoch_and_the_same_each_time() -> None:
    orders = [epoch_order(50, epoch, 0, seed=1) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert (orders[0] != orders[1]).any()
    assert (orders[0] == epoch_order(50, 0, 0, seed=1)).all()
    assert (orders[0] != epoch_order(50, 0, 1, seed=1)).any()


@pytest.mark.parametrize("held", [0, 3, 100])
@pytest.mark.parametrize("order", [None, np.array([4, 0, 2, 1, 3])])
def test_cache_gives_the_same_images_whatever_it_holds(
    held: int, order: NDArray[np.int64] | None
) -> None:
    reader = Reader(broken=frozenset({7}))
    rows = np.array([9, 7, 5, 3, 1], np.int64)
    cache = ImageCache(rows, reader, max_bytes=held * 16, order=order)
    assert cache.rows.tolist() == [9, 5, 3, 1]
    assert cache.held == {0: 0, 3: 2, 100: 4}[held]
    assert [(one.row, one.reason.reason) for one in cache.rejects] == [(7, RejectReason.CORRUPT)]
    before = reader.read
    images = cache.images(np.array([3, 0, 1]))
    assert images[:, 0, 0, 0].tolist() == [1, 9, 5]
    missed = {0: 3, 3: 1, 100: 0}[held]
    assert reader.read - before == missed


def test_an_image_that_vanishes_during_training_is_named() -> None:
    reader = Reader()
    cache = ImageCache(np.array([1, 2], np.int64), reader, max_bytes=0)
    reader.broken = frozenset({2})
    with pytest.raises(RejectedImage):
        cache.images(np.array([1]))


def test_levels_are_counted_over_all_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 6), dtype=np.uint8)
    cache = ImageCache(np.arange(5), lambda rows: [pixels[row] for row in rows], max_bytes=200)
    assert cache.held == 1
    levels = cache.levels()
    for channel in range(3):
        expected, _ = np.histogram(pixels[:, channel], bins=np.arange(257))
        assert (levels[channel] == expected).all()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def _pictures(count: int = 4, side: int = 33) -> torch.Tensor:
    smooth = torch.rand(count, 1, 8, 8, generator=_generator())
    return (torch.nn.functional.interpolate(smooth, (side, side), mode="bilinear") * 255).byte()


def test_no_augmentation_changes_nothing() -> None:
    pixels = _pictures()
    assert torch.equal(augment(pixels, Augmentation(), _generator()), pixels)


def test_augmentation_is_seeded_and_differs_by_image() -> None:
    pixels = _pictures(1).expand(4, -1, -1, -1).contiguous()
    wanted = Augmentation(rotate_deg=20, translate=0.1, scale=0.2, contrast=0.2)
    one, again = (augment(pixels, wanted, _generator()) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one[0], one[1])
    assert one.dtype == torch.uint8


def test_aspect_stretches_one_side_by_what_the_other_loses() -> None:
    wanted = Augmentation(aspect=0.25)
    theta = affine_matrices(500, wanted, _generator())
    across, down = 1 / theta[:, 0, 0], 1 / theta[:, 1, 1]
    torch.testing.assert_close(across * down, torch.ones(500))
    shapes = across / down
    assert 1 / 1.25 <= shapes.min() < 0.82
    assert 1.22 < shapes.max() <= 1.25
    # A disc of 20 by 20 px becomes an ellipse of that shape and of the same area.
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (((x - 31.5) ** 2 + (y - 31.5) ** 2) < 100).to(torch.uint8)[None, None] * 255
    for image in augment(disc.repeat(20, 1, 1, 1), wanted, _generator())[:, 0]:
        bright = image > 127
        wide, high = int(bright.any(0).sum()), int(bright.any(1).sum())
        assert wide * high == pytest.approx(400, rel=0.12)


def test_half_of_the_images_are_blurred() -> None:
    wanted = Augmentation(blur_px=2.0)
    noise = torch.randint(0, 256, (200, 1, 24, 24), generator=_generator()).to(torch.uint8)
    changed = augment(noise, wanted, _generator())
    same = (changed == noise).flatten(1).all(dim=1)
    assert 70 < int(same.sum()) < 130
    sharpness = changed[~same].float().std(dim=(1, 2, 3)) / noise[~same].float().std(dim=(1, 2, 3))
    assert sharpness.max() <= 1.001
    assert sharpness.min() < 0.25


def test_affine_matrices_turn_as_torchvision_does() -> None:
    wanted = Augmentation(rotate_deg=30, translate=0.1, scale=0.2)
    pixels = _pictures()
    theta = affine_matrices(4, wanted, _generator())
    ours = augment(pixels, wanted, _generator())
    side = pixels.shape[-1]
    for index, matrix in enumerate(theta):
        # Ours maps output to input; torchvision takes the forward turn, scale and shift.
        scale = 1 / math.hypot(float(matrix[0, 0]), float(matrix[1, 0]))
        angle = math.degrees(math.atan2(float(matrix[1, 0]), float(matrix[0, 0])))
        back = torch.linalg.inv(matrix[:, :2]) @ -matrix[:, 2]
        moved = reference.affine(
            pixels[index].float(),
            angle=-angle,
            translate=[float(back[0]) * side / 2, float(back[1]) * side / 2],
            scale=scale,
            shear=[0.0, 0.0],
            interpolation=reference.InterpolationMode.BILINEAR,
        )
        difference = (moved - ours[index].float()).abs()
        assert float(difference.median()) <= 1
        assert float(difference.mean()) < 2


def test_flip_mirrors_about_half_of_the_images() -> None:
    pixels = _pictures(1).expand(40, -1, -1, -1).contiguous()
    found = augment(pixels, Augmentation(flip=True), _generator())
    kept = [torch.equal(one, pixels[0]) for one in found]
    mirrored = [torch.equal(one, pixels[0].flip(-1)) for one in found]
    assert all(same or turned for same, turned in zip(kept, mirrored, strict=True))
    assert 10 < sum(mirrored) < 30


def test_brightness_and_contrast_stay_within_limits() -> None:
    pixels = torch.full((50, 1, 8, 8), 100, dtype=torch.uint8)
    bright = augment(pixels, Augmentation(brightness=0.1), _generator()).float()
    assert 70 < float(bright.min()) < 80
    assert 120 < float(bright.max()) < 130
    assert torch.equal(augment(pixels, Augmentation(contrast=0.5), _generator()), pixels)


@pytest.mark.parametrize("schedule", ["cosine", "constant", "step"])
def test_learning_rate_warms_up_and_follows_its_schedule(schedule: str) -> None:
    settings = Optimisation(
        schedule=schedule,  # type: ignore[arg-type]
        warm_up_epochs=1,
        final_share=0.01,
    )
    stage = Stage(10, learning_rate=0.1)
    rates = [learning_rate(step, 10, stage, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([0.01 * (step + 1) for step in range(10)])
    if schedule == "constant":
        assert rates[10:] == [0.1] * 90
    elif schedule == "step":
        assert rates[49:51] == pytest.approx([0.1, 0.01])
        assert rates[74:76] == pytest.approx([0.01, 0.001])
    else:
        assert rates[55] == pytest.approx(0.1 * (0.01 + 0.99 / 2))
        assert rates[10] == 0.1
        assert all(later < former for former, later in itertools.pairwise(rates[10:]))
        assert rates[99] == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_only_kernels_decay(name: str) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    settings = Optimisation(optimiser=name, weight_decay=0.3)  # type: ignore[arg-type]
    optimiser = make_optimiser(network, settings, 0.01)
    assert {group["lr"] for group in optimiser.param_groups} == {0.01}
    decay = {id(p): g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    for parameter in network.parameters():
        assert decay[id(parameter)] == (0.3 if parameter.ndim > 1 else 0)


def test_configuration_survives_json(config: TrainConfig) -> None:
    changed = replace(
        config,
        stages=(Stage(1, 0, 0.1), Stage(2, EVERY_BLOCK, 0.01)),
        optimisation=Optimisation(schedule="step"),
        ema_decay=0.9,
        stop_after=2,
    )
    assert TrainConfig.from_dict(changed.to_dict()) == changed
    with pytest.raises(TypeError, match="no such training setting: epoch"):
        TrainConfig.from_dict({**config.to_dict(), "epoch": 3})


def test_seeds_are_mixed() -> None:
    seeds = {hash_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert hash_seed(1, 2) != hash_seed(2, 1)


def test_ahead_keeps_order_and_raises_in_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    found = ahead(items(), depth=1)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(KeyError, match="three"):
        next(found)


def test_ahead_can_be_left_early() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    for item in ahead(items(), depth=2):
        if item == 3:
            break
    assert len(made) < 20


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_threads_decode_the_same_images_in_order(
    make_examples: Callable[[int, int], Examples], threads: int
) -> None:
    examples = make_examples(20, 0)
    names: set[str] = set()

    def fetch(rows: pa.Table) -> list[Blob]:
        names.add(threading.current_thread().name)
        return [b"nothing" if place == 2 else one for place, one in enumerate(examples.fetch(rows))]

    recipe = {"size": 16, "channels": 1}
    rows = np.array([7, 3, 11, 0, 19, 5, 2], np.int64)
    read = Examples(examples.rows, fetch).reader(recipe, threads)
    found, expected = read(rows), examples.reader(recipe)(rows)
    assert isinstance(found[2], RejectedImage)
    assert len(found) == len(rows)
    for place in (0, 1, 3, 4, 5, 6):
        assert np.array_equal(found[place], expected[place])
    assert read(rows[:0]) == []
    assert names == {threading.current_thread().name}  # sources are read by one thread


def test_memory_that_is_short_bounds_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=80_000))
    # A machine without a limit of a container: what is stated, or a part of half of what is left.
    assert image_bytes(1000, 1, tmp_path) == 1000
    assert image_bytes(2**60, 4, tmp_path) == 10_000
    (tmp_path / "memory.max").write_text("9000\n")
    (tmp_path / "memory.current").write_text("6000\n")
    (tmp_path / "memory.stat").write_text("anon 4000\ninactive_file 1000\nslab 3\n")
    assert image_bytes(10_000, 1, tmp_path) == 2000
    assert image_bytes(10_000, 4, tmp_path) == 500
    assert image_bytes(300, 4, tmp_path) == 300
    (tmp_path / "memory.max").write_text("5\n")
    assert image_bytes(300, 1, tmp_path) == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert image_bytes(300, 1, tmp_path) == 300
