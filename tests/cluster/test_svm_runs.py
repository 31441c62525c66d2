"""From images on disk to the figures of a support vector machine, through the lake."""

import json

import cv2
import numpy as np
import pytest
import safetensors.torch
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from cluster.inline_pool import InlinePool
from cluster.lake.store import LakeStore
from cluster.sources import local_etag
from cluster.svm_trainer import read_vectors
from jobs import embed, evaluate, score, train
from schemas.bundle import CONFIG_FILE, WEIGHTS_FILE, parse_config
from schemas.errors import BundleError, LeakError, RunError
from schemas.specs.embed import EmbedSpec
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.train import Svm, TrainSpec
from tests.jobs.seeding import image, image_id, place, seed
from workers.models.classifier.svm import patient_folds

COUNT = 96
BROKEN = (20, 90)
"""Files that can't be decoded, one to train on and one to test."""
CLASSES = ("dark", "dim", "bright")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Squares of three shades on disk, two images a patient, and a network trained on them."""
    folder = tmp_path_factory.mktemp("shades")
    store = LakeStore.open(str(folder / "lake"), create=True)
    images, places, quality = [], [], []
    for number in range(COUNT):
        shade = number // 2 % 3
        pixels = np.random.default_rng(number).integers(0, 90, (40, 40), dtype=np.uint8)
        pixels[10:20, 10:20] += np.uint8(20 + 60 * shade)
        path = folder / f"{number:03d}.png"
        data = bytes(cv2.imencode(".png", pixels)[1].tobytes())
        path.write_bytes(data[:50] if number in BROKEN else data)
        found = path.stat()
        etag = local_etag(found)
        images.append(image(number, CLASSES[shade], uri=str(path), etag=etag, bytes=found.st_size))
        places.append(place(number, "train" if number < 56 else "val" if number < 76 else "test"))
        quality.append(
            {"image_id": image_id(number), "dataset": "chests", "recipe": "r", "kept": True}
        )
    seed(store, {"images": images, "splits": places, "quality": quality})
    assert train.run(_network(), _pool(store), store).status == "published"
    return store


def _pool(store: LakeStore) -> InlinePool:
    return InlinePool(store.root, pytest.fail)


def _network(**changes: object) -> TrainSpec:
    values = {
        "dataset": "chests",
        "split": "chests-split",
        "model": "shades",
        "architecture": "test_efficientnet",
        "classes": CLASSES,
        "preprocess": {"size": 32},
        "optimizer": {"learning_rate": 0.01},
        "epochs": 2,
        "batch_size": 16,
        "world_size": 1,
        "backends": "eager",
    }
    return TrainSpec.model_validate(values | changes)


def _machine() -> TrainSpec:
    network = _network()
    return TrainSpec(
        dataset=network.dataset,
        split=network.split,
        model="machine",
        architecture=network.architecture,
        classes=network.classes,
        preprocess=network.preprocess,
        backends="eager",
        world_size=1,
        head="svm",
        start="bundle:shades",
        svm=Svm(c=2.0, gamma=0.01),
    )


def _scores(lake: LakeStore, name: str) -> dict[str, list[float]]:
    rows = lake.query(
        "SELECT image_id, scores FROM latest_predictions WHERE name = $name", {"name": name}
    ).to_pylist()
    return {row["image_id"]: row["scores"] for row in rows}


def _expected(lake: LakeStore, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of images 0 to 75 without the broken one, by scikit-learn's own pipeline."""
    fit = [n for n in range(56) if n not in BROKEN]
    targets = np.array([n // 2 % 3 for n in fit])
    groups = [f"p{n // 2}" for n in fit]
    machine = CalibratedClassifierCV(
        SVC(C=2.0, gamma=0.01),
        method="sigmoid",
        ensemble=False,
        cv=patient_folds(targets, groups),
    )
    pipeline = make_pipeline(StandardScaler(), OneVsRestClassifier(machine))
    pipeline.fit(vectors[: len(fit)].astype(np.float64), targets)
    found: NDArray[np.float64] = pipeline.predict_proba(vectors.astype(np.float64))
    return found


def test_vectors_become_a_machine_scores_and_figures(lake: LakeStore) -> None:
    pool = _pool(lake)
    with pytest.raises(BundleError, match=r"no features of the start bundle yet.*76 of 76"):
        train.run(_machine(), pool, lake)
    wanted = EmbedSpec(
        dataset="chests", model="shades", split="chests-split", parts=("train", "val")
    )
    embedded = embed.run(wanted, pool, lake)
    assert (embedded.status, embedded.counts.done, embedded.counts.rejected) == ("published", 75, 1)
    rejects = lake.query("SELECT image_id, stage FROM rejects WHERE stage = 'embed'").to_pylist()
    assert rejects == [{"image_id": image_id(BROKEN[0]), "stage": "embed"}]
    assert embed.run(wanted, pool, lake).status == "up_to_date"

    trained = train.run(_machine(), pool, lake)
    assert (trained.status, trained.counts.done, trained.counts.input) == ("published", 75, 75)
    assert train.run(_machine(), pool, lake).status == "up_to_date"
    start, bundle = lake.bundle("shades"), lake.bundle("machine")
    data = json.loads(bundle["data"])
    assert data["start"] == {"bundle": "shades@1", "model_id": start["model_id"]}
    config = parse_config(lake.read_source(f"{bundle['uri']}/{CONFIG_FILE}"))
    assert (config.head, config.classes) == ("svm", CLASSES)
    whole, own = (
        safetensors.torch.load(lake.read_source(f"{one['uri']}/{WEIGHTS_FILE}"))
        for one in (bundle, start)
    )
    assert all(whole[name].equal(tensor) for name, tensor in own.items())

    scored = score.run(ScoreSpec(dataset="chests", model="machine"), pool, lake)
    assert (scored.counts.done, scored.counts.rejected) == (94, 2)
    scores = _scores(lake, "machine")
    numbers = [n for n in range(76) if n not in BROKEN]
    ids = lake.query("SELECT image_id FROM embeddings ORDER BY image_id")["image_id"]
    vectors = read_vectors(lake.root, start["model_id"], ids)
    expected = _expected(lake, vectors)
    found = np.array([scores[image_id(n)] for n in numbers])
    assert np.abs(found - expected).max() < 1e-5
    assert np.ptp(expected, axis=0).min() > 0.3

    val = [row for row, n in enumerate(numbers) if n >= 56]
    hits = np.mean([expected[row].argmax() == numbers[row] // 2 % 3 for row in val])
    assert config.metrics["val"]["accuracy"] == pytest.approx(hits, abs=1e-6)
    judged = evaluate.run(
        EvaluateSpec(
            dataset="chests", split="chests-split", model="machine", bootstrap=20, pictures=False
        ),
        pool,
        lake,
    )
    assert judged.status == "published"
    by_sql = lake.query(
        "SELECT value FROM metrics WHERE part = 'val' AND metric = 'accuracy' "
        "AND category IS NULL AND subgroup = ''"
    )["value"].to_pylist()
    assert by_sql == pytest.approx([hits])


def test_vectors_that_are_gone_are_named(lake: LakeStore) -> None:
    ids = lake.query("SELECT image_id FROM images ORDER BY image_id LIMIT 3")["image_id"]
    with pytest.raises(RunError, match=r"no features any more \(model 00\): got 3 of 3"):
        read_vectors(lake.root, "00", ids)


def test_a_network_starts_from_a_bundle_and_remembers_it(lake: LakeStore) -> None:
    spec = _network(model="later", start="bundle:shades", unfrozen=0, epochs=1)
    assert train.run(spec, _pool(lake), lake).status == "published"
    start, later = lake.bundle("shades"), lake.bundle("later")
    assert json.loads(later["data"])["start"]["bundle"] == "shades@1"
    before, after = (
        safetensors.torch.load(lake.read_source(f"{one['uri']}/{WEIGHTS_FILE}"))
        for one in (start, later)
    )
    moved = [name for name in before if not before[name].equal(after[name])]
    assert moved
    assert all(name.startswith("classifier.") for name in moved)
    configs = [
        parse_config(lake.read_source(f"{one['uri']}/{CONFIG_FILE}")) for one in (start, later)
    ]
    assert configs[0].preprocessing == configs[1].preprocessing
    turned = [place(n, "test" if n < 8 else "train", split_name="turned") for n in range(56)]
    held = [place(n, "val", split_name="turned") for n in range(56, 76)]
    seed(lake, {"splits": [*turned, *held]})
    with pytest.raises(LeakError, match=r"later@1, split turned\): got 8 images"):
        train.plan(_network(split="turned", start="bundle:later"), lake)
