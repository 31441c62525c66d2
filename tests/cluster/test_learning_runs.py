"""From images on disk to figures: train, score and evaluate through the lake and Ray."""

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from cluster.lake.store import LakeStore
from cluster.pool import RayPool
from cluster.progress import Progress
from cluster.ray_session import RaySession
from cluster.sources import local_etag
from jobs import evaluate, score, train
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.train import TrainSpec
from tests.jobs.seeding import image, image_id, place, seed

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

COUNT = 96
BROKEN = 90


def _archive(folder: Path) -> LakeStore:
    """Bright and dark squares on disk; one file of the test part is broken."""
    store = LakeStore.open(str(folder / "lake"), create=True)
    images, places, quality = [], [], []
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 90, (40, 40), dtype=np.uint8)
        pixels[10:20, 10:20] += 120 if number % 4 < 2 else 20
        path = folder / f"{number:03d}.png"
        data = bytes(cv2.imencode(".png", pixels)[1].tobytes())
        path.write_bytes(data[:50] if number == BROKEN else data)
        label = "bright" if number % 4 < 2 else "dark"
        etag = local_etag(path.stat())
        images.append(image(number, label, uri=str(path), etag=etag, bytes=path.stat().st_size))
        part = "train" if number < 56 else "val" if number < 76 else "test"
        places.append(place(number, part))
        quality.append(
            {"image_id": image_id(number), "dataset": "chests", "recipe": "r", "kept": True}
        )
    seed(store, {"images": images, "splits": places, "quality": quality})
    return store


@pytest.fixture
def lake(tmp_path: Path) -> LakeStore:
    return _archive(tmp_path)


@pytest.fixture
def pool(lake: LakeStore) -> Iterator[RayPool]:
    with RayPool(lake.root, RaySession(cpus=2), Progress(io.StringIO())) as found:
        yield found


def test_images_become_a_bundle_scores_and_figures(lake: LakeStore, pool: RayPool) -> None:
    fit = TrainSpec(
        dataset="chests",
        split="chests-split",
        model="squares",
        architecture="test_efficientnet",
        preprocess={"size": 32},
        optimizer={"learning_rate": 0.01},
        epochs=3,
        batch_size=16,
    )
    trained = train.run(fit, pool, lake)
    assert (trained.status, trained.counts.done, trained.counts.input) == ("published", 76, 76)
    assert train.run(fit, pool, lake).status == "up_to_date"

    scored = score.run(ScoreSpec(dataset="chests", model="squares"), pool, lake)
    assert (scored.status, scored.counts.done, scored.counts.rejected) == ("published", 95, 1)
    rejects = lake.query("SELECT image_id, stage FROM rejects").to_pylist()
    assert rejects == [{"image_id": image_id(BROKEN), "stage": "score"}]
    again = score.run(ScoreSpec(dataset="chests", model="squares"), pool, lake)
    assert (again.status, again.counts.up_to_date) == ("up_to_date", COUNT)

    judge = EvaluateSpec(dataset="chests", split="chests-split", model="squares", bootstrap=50)
    judged = evaluate.run(judge, pool, lake)
    assert (judged.status, judged.counts.done) == ("published", 39)
    figures = {
        (row["part"], row["metric"], row["category"]): row["value"]
        for row in lake.query("SELECT * FROM metrics").to_pylist()
    }
    by_sql = lake.query(
        "SELECT avg(CAST(scored.label = images.label AS INT)) AS accuracy, count(*) AS n "
        "FROM latest_predictions AS scored JOIN current_images AS images USING (image_id) "
        "JOIN splits USING (image_id) WHERE splits.part = 'test'"
    ).to_pylist()[0]
    assert by_sql["n"] == 19
    assert figures["test", "accuracy", None] == pytest.approx(by_sql["accuracy"])
    assert figures["test", "auc", None] > 0.8
    assert evaluate.run(judge, pool, lake).status == "up_to_date"
