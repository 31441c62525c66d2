"""From phantoms to detections: every kind on the way, in this process and with Ray Train."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.inline_pool import InlinePool
from cluster.kinds import KINDS
from cluster.lake.store import LakeStore
from cluster.pool import RayPool
from cluster.progress import Progress
from cluster.ray_session import RaySession
from schemas.bundle import parse_config
from schemas.protocols import Pool
from schemas.specs import SPECS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COUNT = 60


def run(store: LakeStore, pool: Pool, kind: str, **fields: Any) -> Any:
    """Run a job as a job file states it."""
    spec = SPECS[kind].model_validate_json(json.dumps({"kind": kind, **fields}))
    return KINDS[kind].run(spec, pool, store)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Annotated phantoms of the liver, split."""
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    pool, folder = InlinePool(store.root, print), tmp_path / "phantoms"
    run(store, pool, "phantoms", target=str(folder), count=COUNT, size=101, scale_bar_share=0)
    patterns = {"file": str(folder / "metadata.csv"), "key": "path"}
    run(store, pool, "ingest", name="us", source=str(folder / "images"), metadata=patterns)
    run(store, pool, "clean", dataset="us")
    run(store, pool, "split", name="safe", dataset="us", max_group_share=0.5)
    boxes = {"file": str(folder / "boxes.csv"), "columns": {"image": "path"}}
    report = run(
        store,
        pool,
        "annotate",
        name="truth",
        dataset="us",
        source="truth",
        csv=boxes,
        complete=True,
    )
    assert report.status == "published"
    return store


TRAINING = {
    "dataset": "us",
    "split": "us-safe",
    "annotations": "truth",
    "model": "lesions",
    "architecture": "test_resnet",
    "preprocess": {"size": 64},
    "epochs": 2,
    "batch_size": 8,
    "backends": "eager",
}


def check_scores(store: LakeStore, pool: Pool) -> None:
    """Every kept image has one prediction, whatever was detected, and a second night adds none."""
    scored = run(store, pool, "score", dataset="us", model="lesions")
    (kept,) = store.query("SELECT count(*) AS n FROM kept_images")["n"].to_pylist()
    assert (scored.status, scored.counts.done) == ("published", kept)
    rows = store.query(
        "SELECT count(*) AS n, count(DISTINCT image_id) AS images FROM predictions"
    ).to_pylist()
    assert rows == [{"n": kept, "images": kept}]
    detections = store.query(
        "SELECT d.*, i.width, i.height FROM detections AS d JOIN current_images AS i "
        "USING (image_id)"
    ).to_pylist()
    assert detections
    for one in detections:
        assert one["x"] >= 0
        assert one["y"] >= 0
        assert one["w"] > 0
        assert one["h"] > 0
        assert one["x"] + one["w"] <= one["width"] + 1e-3
        assert one["y"] + one["h"] <= one["height"] + 1e-3
    highest = store.query(
        "SELECT count(*) AS n FROM predictions AS p JOIN (SELECT image_id, max(score) AS best "
        "FROM detections GROUP BY image_id) AS d USING (image_id) WHERE abs(p.score - best) > 1e-6"
    )
    assert highest["n"].to_pylist() == [0]
    assert run(store, pool, "score", dataset="us", model="lesions").status == "up_to_date"


def test_phantoms_become_a_detector_and_detections(store: LakeStore) -> None:
    pool = InlinePool(store.root, print)
    trained = run(store, pool, "train_detector", **TRAINING, world_size=1)
    assert trained.status == "published"
    assert run(store, pool, "train_detector", **TRAINING, world_size=1).status == "up_to_date"
    bundle = store.bundle("lesions")
    assert bundle["family"] == "centernet"
    config = parse_config(store.read_source(f"{bundle['uri']}/config.json"))
    assert config.detection is not None
    named = store.query("SELECT DISTINCT category FROM current_annotations")["category"]
    assert set(config.classes) <= set(named.to_pylist())
    check_scores(store, pool)


def test_prepared_pixels_train_the_same_detector(store: LakeStore) -> None:
    """Read back from the lake, an image has the way back to its original."""
    pool = InlinePool(store.root, print)
    run(store, pool, "train_detector", **TRAINING, world_size=1)
    run(store, pool, "prepare", dataset="us", preprocess={"size": 64})
    run(store, pool, "train_detector", **{**TRAINING, "model": "twin"}, world_size=1)
    assert store.bundle("lesions")["model_id"] == store.bundle("twin")["model_id"]
    check_scores(store, pool)


@pytest.mark.cluster
def test_two_workers_train_one_detector(store: LakeStore) -> None:
    with RayPool(store.root, RaySession(cpus=2), Progress(io.StringIO())) as pool:
        trained = run(store, pool, "train_detector", **TRAINING, world_size=2)
        assert trained.status == "published"
        check_scores(store, pool)
