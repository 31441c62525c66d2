"""Validation on a device that is short of memory, and what is read for a bundle's figures."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import Tensor, nn

from schemas.errors import RunError
from schemas.plan import Blob
from workers.models.classifier.finishing import read_validation
from workers.models.classifier.validating import ValidationPart, predict, validate
from workers.scoring.forward import OutOfDeviceMemory
from workers.training import finishing
from workers.training.data import ImageCache
from workers.training.examples import Examples

CPU = torch.device("cpu")
RECIPE = {"size": 8, "channels": 1}
MakeExamples = Callable[[int, int], Examples]


class Small(nn.Module):
    """A network on a GPU that has room for so many images."""

    def __init__(self, room: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layer, self.room = nn.Linear(64, 2), room
        self.asked: list[int] = []
        self.rounding: list[bool] = []

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        self.asked.append(len(pixels_NCHW))
        self.rounding.append(torch.backends.cudnn.allow_tf32)
        if len(pixels_NCHW) > self.room:
            raise torch.cuda.OutOfMemoryError
        logits: Tensor = self.layer(pixels_NCHW.flatten(1).float() / 20)
        return logits


def _part(count: int, batch: int) -> ValidationPart:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    cache = ImageCache(
        np.arange(count), lambda rows: [pixels[row] for row in rows], max_bytes=64 * 5
    )
    return ValidationPart(cache, np.arange(count) % 3 % 2, 2, batch)


def _expected(part: ValidationPart) -> np.ndarray:
    with torch.inference_mode():
        network = Small(room=100)
        outputs = network(torch.from_numpy(part.cache.images(np.arange(len(part.cache)))))
    return np.asarray(outputs.numpy())


def test_a_gpu_without_room_validates_in_smaller_batches() -> None:
    part, network = _part(11, batch=8), Small(room=3)
    with torch.inference_mode():
        found = predict(network, part, CPU)
    # The last pass of each batch is filled up, so that all have one size.
    assert network.asked == [8, 4, 2, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(found, _expected(part), rtol=1e-6)
    assert set(network.rounding) == {False}
    assert torch.backends.cudnn.allow_tf32
    with pytest.raises(OutOfDeviceMemory):
        predict(Small(room=0), part, CPU)


def test_a_small_part_is_one_pass() -> None:
    part, network = _part(5, batch=64), Small(room=100)
    with torch.inference_mode():
        predict(network, part, CPU)
    assert network.asked == [5]
    assert predict(network, _part(0, batch=64), CPU).shape == (0, 2)


def test_figures_of_validation_equal_scikit_learn() -> None:
    part = _part(40, batch=16)
    scores = torch.from_numpy(_expected(part)).double().softmax(dim=1).numpy()
    with torch.inference_mode():
        figures = validate(Small(room=100), part, CPU)
    assert figures == {
        "auc": pytest.approx(roc_auc_score(part.targets, scores[:, 1])),
        "accuracy": accuracy_score(part.targets, scores.argmax(axis=1)),
        "val_loss": pytest.approx(log_loss(part.targets, scores), rel=1e-6),
    }


def test_outputs_that_are_no_numbers_leave_no_auc() -> None:
    network = Small(room=100)
    nn.init.constant_(network.layer.weight, float("inf"))
    with torch.inference_mode():
        figures = validate(network, _part(6, batch=4), CPU)
    assert figures.keys() == {"accuracy", "val_loss"}
    assert np.isnan(figures["val_loss"])


def test_what_a_bundle_is_judged_on_is_bounded_by_bytes(
    make_examples: MakeExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = make_examples(4, 20)
    every = read_validation(RECIPE, ("dark", "bright"), examples)
    assert every.pixels_NCHW.shape == (20, 1, 8, 8)
    assert every.actual_N.tolist() == [0, 1] * 10
    monkeypatch.setattr(finishing, "MOST_BYTES", 64 * 5)
    some = read_validation(RECIPE, ("dark", "bright"), examples)
    places = [0, 4, 9, 14, 19]  # spread over the rows, which may be sorted
    assert np.array_equal(some.pixels_NCHW, every.pixels_NCHW[places])
    assert some.actual_N.tolist() == [place % 2 for place in places]
    assert some.groups == [every.groups[place] for place in places]


def test_images_that_cannot_be_read_judge_no_bundle(make_examples: MakeExamples) -> None:
    examples = make_examples(4, 20)

    def broken(rows: object, good: int = 0) -> list[Blob]:
        blobs = list(examples.fetch(rows))  # type: ignore[arg-type]
        return [blob if place < good else b"nothing" for place, blob in enumerate(blobs)]

    some = read_validation(
        RECIPE, ("dark", "bright"), Examples(examples.rows, lambda rows: broken(rows, 3))
    )
    assert some.pixels_NCHW.shape == (3, 1, 8, 8)
    assert some.groups == ["p2", "p2", "p3"]
    with pytest.raises(
        RunError, match="No validation image can be read: got 20 images: unknown_format 20"
    ):
        read_validation(RECIPE, ("dark", "bright"), Examples(examples.rows, broken))
