"""Pre-training as a whole: it resumes exactly, no label moves a weight, its bundle opens."""

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import timm
import torch
import torch.distributed as dist
from torch import Tensor

from schemas.bundle import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, Preprocessing, parse_config
from tests.workers.training.conftest import Pictures
from tests.workers.training.local_context import DyingContext, Interrupted, LocalContext
from workers.models.network import build_network, start_from
from workers.models.simsiam import network as simsiam
from workers.models.simsiam.bundling import BackboneFacts, finish_bundle
from workers.models.simsiam.config import ProbeSettings, SimSiamConfig
from workers.models.simsiam.fitting import build_simsiam, fit_simsiam
from workers.scoring import embedder
from workers.training import ranks
from workers.training.checkpoint import BEST_FILE, OPTIMISER_FILE, PROGRESS_FILE
from workers.training.checkpoint import WEIGHTS_FILE as W
from workers.training.config import Optimisation, Stage
from workers.training.examples import Examples
from workers.training.feeding import Fitted, Origin

RATE = 0.02
CONFIG = SimSiamConfig(
    architecture="test_efficientnet",
    recipe={"size": 32, "channels": 1},
    stages=(Stage(2, learning_rate=RATE),),
    batch=8,
    seed=4,
    probe=ProbeSettings(("bright", "dark"), every=1, neighbours=3),
    optimisation=Optimisation(
        "sgd",
        weight_decay=1e-4,
        plain_momentum=True,
        warm_up_epochs=0,
        final_share=0,
        constant_part="predictor",
    ),
)


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and a projector of a few numbers: the method's own takes seconds a step."""
    torch.set_num_threads(1)
    monkeypatch.setattr(simsiam, "EMBEDDING", 64)
    monkeypatch.setattr(simsiam, "_BOTTLENECK", 16)


def by_brightness(number: int) -> str | None:
    return "bright" if number % 2 else "dark"


def examples(labels: Callable[[int], str | None] = by_brightness) -> Examples:
    numbers = range(28)
    rows = {
        "image_id": [f"{number:032x}" for number in numbers],
        "uri": [f"memory/{number}.png" for number in numbers],
        "frame": pa.array([0] * 28, pa.int32()),
        "part": ["train" if number < 18 else "val" for number in numbers],
        "label": pa.array([labels(number) for number in numbers], pa.string()),
        "group": [f"p{number // 2}" for number in numbers],
    }
    return Examples(pa.table(rows), Pictures())


def fit(config: SimSiamConfig, context: LocalContext, seen: Examples) -> Fitted:
    return fit_simsiam(config, seen, context, origin=Origin(), cache_bytes=2**24)


def weights(folder: Path, name: str = W) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / name)


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def bundle(folder: Path, fitted: Fitted, config: SimSiamConfig = CONFIG) -> dict[str, bytes]:
    last = (folder / BEST_FILE).read_bytes(), (folder / PROGRESS_FILE).read_bytes()
    facts = BackboneFacts("breasts", {"dataset": "d", "split": "s"}, "f" * 16)
    return finish_bundle(last, fitted.preprocessing, facts, config, examples())


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, cut = LocalContext(tmp_path / "whole"), tmp_path / "cut"
    fit(CONFIG, whole, examples())
    with pytest.raises(Interrupted):
        fit(CONFIG, DyingContext(cut, dies_after=1), examples())
    again = LocalContext(cut)
    fit(CONFIG, again, examples())
    assert [one["epoch"] for one in again.reports] == [1]
    assert_equal(weights(tmp_path / "whole"), weights(cut))
    told = [{n: one[n] for n in one if not n.endswith("_s")} for one in whole.reports]
    assert told[1] == {n: one for n, one in again.reports[0].items() if not n.endswith("_s")}
    assert told[0]["probe_accuracy"] <= 1


def test_labels_serve_the_probe_alone(tmp_path: Path) -> None:
    first, second = LocalContext(tmp_path / "all"), LocalContext(tmp_path / "none")
    fit(CONFIG, first, examples())
    told = fit(replace(CONFIG, probe=None), second, examples(lambda _: None))
    assert_equal(weights(tmp_path / "all", BEST_FILE), weights(tmp_path / "none", BEST_FILE))
    assert "probe_accuracy" not in second.reports[-1]
    assert told.progress.best_epoch == 1, "the last epoch is kept, whatever its figures"


def test_the_predictor_alone_keeps_its_rate(tmp_path: Path) -> None:
    context = LocalContext(tmp_path / "kept")
    fit(CONFIG, context, examples())
    # The last of four steps lies three quarters down the cosine.
    rate = context.reports[-1]["learning_rate"]
    assert rate == pytest.approx(RATE * (1 + np.cos(0.75 * np.pi)) / 2)
    state = torch.load(tmp_path / "kept" / OPTIMISER_FILE, weights_only=True)
    parts = build_simsiam(CONFIG).named_children()
    own = {name: len(list(part.parameters())) for name, part in parts}
    found = {RATE: 0, rate: 0}
    for group in state["param_groups"]:
        found[group["lr"]] += len(group["params"])
        assert (group["momentum"], group["nesterov"]) == (0.9, False)
    assert list(found.values()) == [own["predictor"], own["backbone"] + own["projector"]]


def test_the_bundle_opens_embeds_and_starts_a_classifier(tmp_path: Path) -> None:
    fitted = fit(CONFIG, LocalContext(tmp_path / "kept"), examples())
    files = bundle(tmp_path / "kept", fitted)
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    config = parse_config(files[CONFIG_FILE])
    assert (config.family, config.classes, config.num_classes) == ("simsiam", (), 0)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    kept = weights(tmp_path / "kept", BEST_FILE)
    prefix = "backbone.network."
    own = {n.removeprefix(prefix): one for n, one in kept.items() if n.startswith(prefix)}
    assert_equal(dict(network.state_dict()), own)

    seen = examples()
    rows = seen.rows.slice(0, 3).append_column("etag", pa.array(["e"] * 3))
    made = embedder.load({"model_id": config.model_id}, files)(rows, seen.fetch(rows))
    vectors = np.stack(made.tables["embeddings"]["vector"].to_pylist())
    images = np.stack(list(seen.reader(CONFIG.recipe)(np.arange(3))))  # type: ignore[arg-type]
    ready = (images / 255 - config.preprocessing.mean[0]) / config.preprocessing.std[0]
    with torch.inference_mode():
        expected = network(torch.from_numpy(ready).float()).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)

    classifier = build_network("test_efficientnet", 2, 1)
    left = start_from(classifier, files[WEIGHTS_FILE], new_head=True)
    assert sorted(left) == ["classifier.bias", "classifier.weight"]
    assert torch.equal(classifier.state_dict()["conv_stem.weight"], own["conv_stem.weight"])


def test_figures_compare_the_probe_with_random_weights(tmp_path: Path) -> None:
    fitted = fit(CONFIG, LocalContext(tmp_path / "kept"), examples())
    files = bundle(tmp_path / "kept", fitted)
    val = parse_config(files[CONFIG_FILE]).metrics["val"]
    assert (val["probe_n"], val["probe_known"], val["collapsed"]) == (10, 18, False)
    # The training's own probe of its kept epoch, by the same images.
    assert val["probe_accuracy"] == fitted.progress.history[-1]["probe_accuracy"]
    gain = val["probe_accuracy"] - val["probe_random_accuracy"]
    assert val["gain_accuracy"] == pytest.approx(gain, abs=1e-6)
    low, high = val["gain_accuracy 95%"]
    assert low <= gain <= high
    card = files[CARD_FILE].decode()
    assert "`start: bundle:breasts`" in card
    assert "collapsed" not in card


def test_a_collapse_is_told_and_an_epoch_before_it_kept(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    longer = replace(CONFIG, stages=(Stage(3, learning_rate=RATE),), probe=None)
    spreads = iter([0.9, 0.6, 0.1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.models.simsiam.watching.Watch.loss", _collapsing(spreads))
        fitted = fit(longer, LocalContext(folder), examples())
    assert [one["sound_epoch"] for one in fitted.progress.history] == [1, 2, 0]
    assert fitted.progress.best_epoch == 1
    files = bundle(folder, fitted, longer)
    val = parse_config(files[CONFIG_FILE]).metrics["val"]
    assert (val["collapsed"], val["spread_at_end"]) == (True, pytest.approx(0.1))
    card = files[CARD_FILE].decode()
    assert "**The training collapsed**: at its end the spread was 0.100, below 0.5" in card
    assert "epoch 2 of 3, spread 0.600" in card


def _collapsing(spreads: object) -> Callable[..., Tensor]:
    """The loss of a network whose embeddings spread as told, epoch by epoch."""

    def loss(self: object, network: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if not self._spreads:  # type: ignore[attr-defined]
            self._spreads.append(torch.tensor(next(spreads)))  # type: ignore[attr-defined,call-overload]
        found: Tensor = simsiam.similarity_loss(*network(*batch))
        return found

    return loss


def test_settings_survive_the_way_to_workers() -> None:
    sent = json.loads(json.dumps(CONFIG.to_dict()))
    assert SimSiamConfig.from_dict(sent) == CONFIG
    with pytest.raises(TypeError, match="unknown"):
        SimSiamConfig.from_dict({**sent, "unknown": 1})


def test_preprocessing_of_a_start_is_kept(tmp_path: Path) -> None:
    start = build_simsiam(replace(CONFIG, seed=9)).backbone
    origin = Origin(
        safetensors.torch.save(dict(start.state_dict())),
        Preprocessing(recipe={"size": 32}, mean=(0.31,), std=(0.17,)),
    )
    still = replace(CONFIG, start="checkpoint", stages=(Stage(1, learning_rate=1e-12),), probe=None)
    fitted = fit_simsiam(
        still, examples(), LocalContext(tmp_path / "kept"), origin=origin, cache_bytes=2**24
    )
    assert fitted.preprocessing.mean == (0.31,)
    torch.testing.assert_close(
        fitted.progress.best["backbone.network.conv_stem.weight"],
        start.state_dict()["conv_stem.weight"],
    )


def _rank(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    simsiam.EMBEDDING, simsiam._BOTTLENECK = 64, 16
    dist.init_process_group("gloo", rank=rank, world_size=2)
    context = LocalContext(folder / str(rank))
    context.rank, context.world_size = rank, 2
    fitted = fit(CONFIG, context, examples())
    named = ("loss", "val_loss", "spread", "val_spread", "feature_spread", "probe_accuracy")
    told = [[one[name] for name in named] for one in fitted.progress.history]
    sums = [tensor.double().sum().item() for tensor in fitted.progress.best.values()]
    both = ranks.gather_objects((told, sums))
    assert both[0] == both[1]
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_tell_the_same_figures_and_keep_the_same_weights(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_rank, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0


@pytest.mark.slow
def test_real_images_do_not_collapse(tmp_path: Path, shared_data: Path) -> None:
    found = [
        (path, label)
        for label in ("benign", "malignant", "normal")
        for path in sorted((shared_data / "us-busi" / label / "images").glob("*.png"))[:16]
    ]
    count = len(found)
    rows = {
        "image_id": [f"{number:032x}" for number in range(count)],
        "uri": [str(path) for path, _ in found],
        "frame": pa.array([0] * count, pa.int32()),
        "part": ["val" if number % 4 == 0 else "train" for number in range(count)],
        "label": [label for _, label in found],
        "group": [str(number) for number in range(count)],
    }

    def fetch(taken: pa.Table) -> list[bytes]:
        return [Path(uri).read_bytes() for uri in taken["uri"].to_pylist()]

    config = replace(
        CONFIG,
        recipe={"size": 64, "channels": 1},
        stages=(Stage(4, learning_rate=0.05),),
        batch=12,
        probe=ProbeSettings(("benign", "malignant", "normal"), every=4, neighbours=5),
    )
    context = LocalContext(tmp_path / "kept")
    seen = Examples(pa.table(rows), fetch)
    fitted = fit_simsiam(config, seen, context, origin=Origin(), cache_bytes=2**24)
    assert all(0.5 < one["spread"] < 2 for one in context.reports)
    assert [one["epoch"] for one in context.reports if "probe_accuracy" in one] == [3]
    assert 0.1 < fitted.preprocessing.mean[0] < 0.5, "pixels are measured on the images"
    assert not fitted.rejects
