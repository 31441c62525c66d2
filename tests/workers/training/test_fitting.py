"""Training as a whole: it learns, it resumes exactly, it refuses what can't be trained."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch

from schemas.errors import BundleError, RunError
from schemas.plan import Blob
from tests.workers.training.local_context import DyingContext, Interrupted, LocalContext
from workers.models.blocks import HEAD, find_parts
from workers.models.classifier.fitting import fit_classifier
from workers.models.network import build_network
from workers.training.checkpoint import BEST_FILE, WEIGHTS_FILE
from workers.training.config import Stage, TrainConfig
from workers.training.examples import Examples
from workers.training.feeding import Origin
from workers.training.loop import hash_seed

MakeExamples = Callable[[int, int], Examples]
CACHE = 2**24


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _weights(folder: Path, name: str = WEIGHTS_FILE) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / name)


def _assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_training_learns_and_keeps_its_best_epoch(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig
) -> None:
    context = LocalContext(tmp_path / "kept")
    longer = replace(config, stages=(Stage(6, learning_rate=0.01),))
    fitted = fit_classifier(
        longer, make_examples(160, 60), context, origin=Origin(), cache_bytes=CACHE
    )
    aucs = [report["auc"] for report in context.reports]
    assert len(aucs) == 6
    assert max(aucs) > 0.95
    worth = [(report["auc"], -report["val_loss"]) for report in context.reports]
    assert fitted.progress.best_epoch == worth.index(max(worth))
    assert fitted.progress.history == context.reports
    _assert_equal(fitted.progress.best, _weights(tmp_path / "kept", BEST_FILE))


@pytest.mark.parametrize(
    ("stages", "ema_decay", "dies_after"),
    [
        ((Stage(3),), 0.0, 1),
        ((Stage(3),), 0.9, 2),
        ((Stage(1, 0), Stage(2, 2), Stage(1)), 0.0, 1),
        ((Stage(1, 0), Stage(2, 2), Stage(1)), 0.9, 2),
    ],
)
def test_resumed_training_ends_with_the_same_weights(
    tmp_path: Path,
    make_examples: MakeExamples,
    config: TrainConfig,
    stages: tuple[Stage, ...],
    ema_decay: float,
    dies_after: int,
) -> None:
    examples = make_examples(64, 20)
    stages = tuple(replace(one, learning_rate=0.01) for one in stages)
    config = replace(config, stages=stages, ema_decay=ema_decay)
    whole = LocalContext(tmp_path / "whole")
    undisturbed = fit_classifier(config, examples, whole, origin=Origin(), cache_bytes=CACHE)
    dying = DyingContext(tmp_path / "cut", dies_after)
    with pytest.raises(Interrupted):
        fit_classifier(config, examples, dying, origin=Origin(), cache_bytes=CACHE)
    torch.manual_seed(99)  # the second process starts from another state
    context = LocalContext(tmp_path / "cut")
    resumed = fit_classifier(config, examples, context, origin=Origin(), cache_bytes=CACHE)
    assert len(context.reports) == config.epochs - dies_after
    _assert_equal(_weights(tmp_path / "whole"), _weights(tmp_path / "cut"))
    _assert_equal(undisturbed.progress.best, resumed.progress.best)
    for one, other in zip(undisturbed.progress.history, resumed.progress.history, strict=True):
        assert {key: one[key] for key in ("auc", "loss", "val_loss", "epoch")} == {
            key: other[key] for key in ("auc", "loss", "val_loss", "epoch")
        }


def test_memory_for_images_changes_no_weight(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig
) -> None:
    short = replace(config, stages=(Stage(1, learning_rate=0.01),))
    folders = []
    for cache_bytes in (CACHE, 50 * 1024):
        folders.append(tmp_path / str(cache_bytes))
        context = LocalContext(folders[-1])
        fit_classifier(
            short, make_examples(64, 20), context, origin=Origin(), cache_bytes=cache_bytes
        )
    one, other = (_weights(folder) for folder in folders)
    _assert_equal(one, other)


def test_seed_decides_the_weights(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig
) -> None:
    found = []
    for number, seed in enumerate((1, 1, 2)):
        context = LocalContext(tmp_path / str(number))
        short = replace(config, seed=seed, stages=(Stage(1, learning_rate=0.01),))
        fit_classifier(short, make_examples(48, 16), context, origin=Origin(), cache_bytes=CACHE)
        found.append(_weights(tmp_path / str(number)))
    _assert_equal(found[0], found[1])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_early_stopping_ends_training(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig
) -> None:
    still = replace(config, stages=(Stage(8, learning_rate=1e-9),), stop_after=2)
    context = LocalContext(tmp_path / "kept")
    fitted = fit_classifier(
        still, make_examples(48, 20), context, origin=Origin(), cache_bytes=CACHE
    )
    assert len(context.reports) < 8
    assert len(context.reports) == fitted.progress.best_epoch + 3


def test_stages_train_the_blocks_they_name(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig
) -> None:
    found = []
    for epochs in (1, 2):
        stages = (Stage(1, 0, 0.01), Stage(1, 2, 0.01))[:epochs]
        context = LocalContext(tmp_path / str(epochs))
        fit_classifier(
            replace(config, stages=stages),
            make_examples(48, 16),
            context,
            origin=Origin(),
            cache_bytes=CACHE,
        )
        found.append(_weights(tmp_path / str(epochs)))
    torch.manual_seed(hash_seed(config.seed))
    network = build_network(config.architecture, 2, 1)
    parts = find_parts(network)
    start = network.state_dict()
    for name, tensor in found[0].items():
        inner = name.removeprefix("network.")
        part = parts[inner.rpartition(".")[0]]
        # Statistics of batch norms stay with the weights of their block.
        assert torch.equal(tensor, start[inner]) == (part != HEAD), name
        assert torch.equal(tensor, found[1][name]) == (part > 2), name


def test_a_depth_the_network_has_not_is_refused_before_training(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig
) -> None:
    context = LocalContext(tmp_path / "kept")
    deeper = replace(config, stages=(Stage(1, 0, 0.01), Stage(1, 6, 0.01)))
    examples = replace(make_examples(48, 16), fetch=_never)  # no image is read before
    with pytest.raises(BundleError, match="got unfrozen 6 of 5 blocks"):
        fit_classifier(deeper, examples, context, origin=Origin(), cache_bytes=CACHE)
    assert not context.reports


def _never(rows: object) -> NoReturn:
    raise AssertionError


def test_too_few_images_are_refused(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig
) -> None:
    for count in (0, 1):
        expected = rf"too few training images.*got {count} images on a worker"
        context = LocalContext(tmp_path / "kept")
        with pytest.raises(RunError, match=expected):
            fit_classifier(
                config, make_examples(count, 4), context, origin=Origin(), cache_bytes=CACHE
            )


def test_a_validation_part_of_one_class_is_judged_by_its_loss(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig
) -> None:
    examples = make_examples(48, 20)
    places = np.array([*range(48), *range(48, 68, 2)])
    examples = replace(examples, rows=examples.rows.take(pa.array(places)))
    context = LocalContext(tmp_path / "kept")
    fitted = fit_classifier(config, examples, context, origin=Origin(), cache_bytes=CACHE)
    losses = [report["val_loss"] for report in context.reports]
    assert fitted.progress.best_epoch == int(np.argmin(losses))
    assert all("auc" not in report for report in context.reports)
    # Nothing that JSON has no word for reaches the bundle or those who follow the training.
    json.dumps(fitted.progress.history, allow_nan=False)


def test_a_validation_part_that_cannot_be_read_is_refused(
    tmp_path: Path, make_examples: MakeExamples, config: TrainConfig
) -> None:
    examples = make_examples(48, 20)
    lost = replace(examples, fetch=lambda rows: _without_val(examples, rows))
    context = LocalContext(tmp_path / "kept")
    with pytest.raises(
        RunError, match="No validation image can be read: got 20 images: unknown_format 20"
    ):
        fit_classifier(config, lost, context, origin=Origin(), cache_bytes=CACHE)


def _without_val(examples: Examples, rows: pa.Table) -> list[Blob]:
    parts = zip(examples.fetch(rows), rows["part"].to_pylist(), strict=True)
    return [b"nothing" if part == "val" else blob for blob, part in parts]
