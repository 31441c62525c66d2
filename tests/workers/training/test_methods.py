"""Every loss, head and way of drawing images through a whole training of seconds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.bundle import Preprocessing
from schemas.plan import Blob
from tests.workers.training.local_context import LocalContext
from workers.models.classifier import fitting
from workers.models.classifier.feeding import epoch_batches
from workers.models.classifier.fitting import fit_classifier
from workers.models.classifier.heads import Corn
from workers.models.network import build_network
from workers.models.normalise import Normalised
from workers.models.pixels import preprocessing_of
from workers.training.config import Augmentation, LossSettings, Stage, TrainConfig
from workers.training.data import ImageCache
from workers.training.examples import Examples
from workers.training.feeding import Fitted, Origin, Share

CLASSES = ("normal", "benign", "malignant")
LEVELS = (40, 120, 200)
CACHE = 2**24


def _png(number: int, label: str) -> bytes:
    """A square whose grey tells the class, on noise."""
    generator = np.random.default_rng(number)
    image = generator.integers(0, 60, (40, 40), dtype=np.uint8)
    row, column = generator.integers(2, 16, 2)
    image[row : row + 20, column : column + 20] = LEVELS[CLASSES.index(label)]
    return bytes(cv2.imencode(".png", image)[1].tobytes())


class Pictures:
    """Stands in for a store: draws each image as its row says."""

    def __call__(self, rows: pa.Table) -> Sequence[Blob]:
        pairs = zip(rows["image_id"].to_pylist(), rows["label"].to_pylist(), strict=True)
        return [_png(int(number, 16), label) for number, label in pairs]


def _examples(labels: Sequence[str], val: int) -> Examples:
    """Images of these labels to train on, and ``val`` of classes in turn to validate on."""
    every = [*labels, *(CLASSES[place % 3] for place in range(val))]
    numbers = range(len(every))
    rows = pa.table(
        {
            "image_id": [f"{number:032x}" for number in numbers],
            "uri": [f"memory/{number}.png" for number in numbers],
            "frame": pa.array([0] * len(numbers), pa.int32()),
            "part": ["train" if number < len(labels) else "val" for number in numbers],
            "label": every,
            "group": [f"p{number // 2}" for number in numbers],
        }
    )
    return Examples(rows, Pictures())


BALANCED = [CLASSES[place % 3] for place in range(96)]
RARE = [CLASSES[(place % 12 == 0) + (place % 24 == 0)] for place in range(96)]

CONFIG = TrainConfig(
    architecture="test_efficientnet",
    classes=CLASSES,
    recipe={"size": 32, "channels": 1},
    stages=(Stage(3, learning_rate=0.01),),
    batch=16,
    seed=5,
    augmentation=Augmentation(translate=0.05),
)
COSTS = ((0.0, 1.0, 2.0), (1.0, 0.0, 1.0), (2.0, 1.0, 0.0))

METHODS = {
    "cross_entropy": {},
    "binary": {"loss": LossSettings("binary")},
    "focal": {"loss": LossSettings("focal")},
    "cost": {"loss": LossSettings("cost", costs=COSTS, cross_entropy_share=0.5)},
    "corn": {"head": "corn"},
    "corn with mixup": {"head": "corn", "augmentation": Augmentation(mixup=0.2)},
    "mixup": {"augmentation": Augmentation(mixup=0.2)},
    "randaugment": {"augmentation": Augmentation(randaugment=(2, 5))},
    "bf16 focal with mixup": {
        "precision": "bf16",
        "loss": LossSettings("focal"),
        "augmentation": Augmentation(mixup=0.2),
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _fit(config: TrainConfig, examples: Examples, folder: Path) -> Fitted:
    return fit_classifier(
        config, examples, LocalContext(folder), origin=Origin(), cache_bytes=CACHE
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_a_simple_task(name: str, tmp_path: Path) -> None:
    config = replace(CONFIG, **METHODS[name])  # type: ignore[arg-type]
    fitted = _fit(config, _examples(BALANCED, 30), tmp_path / "kept")
    history = fitted.progress.history
    assert history[fitted.progress.best_epoch]["auc"] > 0.85
    # With mixup, a loss is mostly that of the share drawn: it falls over many epochs only.
    assert config.augmentation.mixup or history[-1]["loss"] < history[0]["loss"]
    outputs = 2 if name.startswith("corn") else 3
    assert fitted.progress.best["network.classifier.weight"].shape[0] == outputs


def test_a_rerun_is_bit_identical_with_every_random_part(tmp_path: Path) -> None:
    config = replace(
        CONFIG,
        stages=(Stage(1, learning_rate=0.01),),
        balance="sampler",
        augmentation=Augmentation(rotate_deg=10, contrast=0.1, mixup=0.4, randaugment=(2, 9)),
    )
    examples = _examples(RARE, 12)
    one, again, other = (
        _fit(replace(config, seed=seed), examples, tmp_path / str(place)).progress.best
        for place, seed in enumerate((5, 5, 6))
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def _cache(examples: Examples, config: TrainConfig) -> ImageCache:
    read = examples.reader(config.recipe)
    return ImageCache(examples.of_part("train"), read, max_bytes=CACHE)


def test_the_sampler_makes_as_many_steps_of_equal_classes() -> None:
    examples = _examples(RARE, 3)
    config = replace(CONFIG, balance="sampler")
    targets = examples.targets(CLASSES)
    assert np.bincount(targets[:96]).tolist() == [88, 4, 4]
    batches = list(epoch_batches(config, _cache(examples, config), targets, 0, Share(0, 16, 6)))
    assert [len(batch[1]) for batch in batches] == [16] * 6
    drawn = torch.cat([batch[1] for batch in batches])
    assert torch.bincount(drawn).tolist() == [32, 32, 32]
    plain = list(epoch_batches(CONFIG, _cache(examples, config), targets, 0, Share(0, 16, 6)))
    assert torch.bincount(torch.cat([batch[1] for batch in plain])).tolist() == [88, 4, 4]


def test_mixed_batches_hold_pairs_and_their_shares() -> None:
    examples = _examples(BALANCED[:21], 3)
    config = replace(CONFIG, augmentation=Augmentation(mixup=1.0))
    targets, cache = examples.targets(CLASSES), _cache(examples, CONFIG)
    mixed = list(epoch_batches(config, cache, targets, 2, Share(0, 7, 3)))
    plain = list(
        epoch_batches(
            replace(CONFIG, augmentation=Augmentation()), cache, targets, 2, Share(0, 7, 3)
        )
    )
    shares = set()
    for (pixels, soft, partners, share), (same, hard) in zip(mixed, plain, strict=True):
        assert torch.equal(pixels, same)
        one_hot = torch.nn.functional.one_hot(hard, 3).float()
        torch.testing.assert_close(soft, share * one_hot + (1 - share) * one_hot[partners])
        shares.add(float(share))
    assert len(shares) == 3


class Remembering(torch.nn.Module):
    """Keeps what it is given."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen = pixels
        return pixels.flatten(1)[:, :3].to(torch.bfloat16)


def test_losses_are_computed_in_float32_on_blended_pixels() -> None:
    config = replace(CONFIG, loss=LossSettings("cost", costs=COSTS, cross_entropy_share=0.5))
    loss = fitting._loss(config, np.arange(3), torch.device("cpu"))
    network = Remembering()
    pixels = torch.arange(2 * 9, dtype=torch.uint8).view(2, 1, 3, 3)
    soft, partners = torch.tensor([[0.75, 0.25, 0.0], [0.25, 0.75, 0.0]]), torch.tensor([1, 0])
    batch = (pixels, soft, partners, torch.tensor(0.75))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(network, batch)
    assert found.dtype == torch.float32
    assert network.seen[0, 0, 0].tolist() == [2.25, 3.25, 4.25]
    p_NK = network.seen.flatten(1)[:, :3].to(torch.bfloat16).double().softmax(dim=1)
    table_NK = p_NK @ torch.tensor(COSTS).double() - 0.5 * p_NK.log()
    assert float(found) == pytest.approx(float((soft * table_NK).sum(dim=1).mean()), rel=1e-6)


def test_weights_follow_all_training_rows() -> None:
    config = replace(CONFIG, balance="weights")
    loss = fitting._loss(config, np.array([0] * 6 + [1] * 2 + [2]), torch.device("cpu"))
    pixels = torch.tensor([[1.0, 2.0, 3.0], [2.0, 0.0, 1.0]]).view(2, 1, 1, 3)
    targets = torch.tensor([0, 2])
    found = loss(Remembering(), (pixels, targets))
    weight = torch.tensor([0.5, 1.5, 3.0])
    expected = torch.nn.functional.cross_entropy(pixels.flatten(1), targets, weight)
    torch.testing.assert_close(found, expected)


def test_validation_sees_the_probabilities_of_the_head(tmp_path: Path) -> None:
    config = replace(CONFIG, head="corn", stages=(Stage(1, learning_rate=0.01),))
    examples = _examples(BALANCED[:32], 12)
    fitted = _fit(config, examples, tmp_path / "kept")
    network = Normalised(
        build_network("test_efficientnet", 2, 1),
        fitted.preprocessing.mean,
        fitted.preprocessing.std,
    )
    network.load_state_dict(fitted.progress.best)
    rows = examples.of_part("val")
    pixels = np.stack(examples.reader(config.recipe)(rows))  # type: ignore[arg-type]
    with torch.inference_mode():
        logs = Corn()(network.eval()(torch.from_numpy(pixels))).numpy()
    targets = examples.targets(CLASSES)[rows]
    expected = -logs[np.arange(12), targets].mean()
    assert fitted.progress.history[0]["val_loss"] == pytest.approx(expected, rel=1e-4)
    accuracy = (logs.argmax(axis=1) == targets).mean()
    assert fitted.progress.history[0]["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize(("mean", "std"), [((0.3,), (0.2,)), ((0.2, 0.3, 0.4), (0.1, 0.2, 0.3))])
def test_start_weights_keep_the_statistics_of_their_bundle(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    cache = _cache(_examples(BALANCED[:6], 3), CONFIG)
    pixels = Preprocessing(recipe={"size": 64, "channels": len(mean)}, mean=mean, std=std)
    device = torch.device("cpu")
    known = preprocessing_of(CONFIG, cache, device, pixels)
    assert known.mean == pytest.approx((0.3,))
    assert known.std == pytest.approx((0.2,))
    assert known.recipe == CONFIG.recipe
    own = preprocessing_of(CONFIG, cache, device, None)
    assert own.mean == pytest.approx((cache.images(np.arange(6)).mean() / 255,), abs=1e-4)
