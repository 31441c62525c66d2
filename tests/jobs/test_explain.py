"""Explaining images of a lake for real: rows, pictures, what is new and what is up to date."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from cluster.shards import ShardProcess, ShardTask, encode_rows, finish_run
from cluster.sources import local_etag
from jobs import explain
from jobs.bundles import model_row
from schemas.bundle import OperatingPoint, parse_config
from schemas.errors import BundleError
from schemas.protocols import Report, Run
from schemas.specs.base import Execution
from schemas.specs.explain import ExplainSpec
from tests.jobs.detecting import detector_config
from tests.jobs.seeding import DATASET, image, image_id, place, seed
from tests.workers.explain.small import small_bundle

COUNT = 24
BROKEN = 20


class _Here:
    """Computes shards and finishing steps as a worker would, in this process."""

    def run_shards(self, run: Run, execution: Execution) -> None:
        assert isinstance(run, LakeRun)
        root, plan = run.storage.root, run.plan
        process = ShardProcess(root, run.id, plan.kind, dict(plan.params))
        for shard in run.pending():
            process.run(ShardTask(shard, encode_rows(run.rows(shard)), {}))

    def finish(self, run: Run) -> None:
        assert isinstance(run, LakeRun)
        finish_run(run.storage.root, run.id)

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        raise NotImplementedError


def _draw(folder: Path, number: int) -> None:
    generator = np.random.default_rng(number)
    view = generator.integers(20, 120, (60, 90), dtype=np.uint8)
    mask = np.zeros_like(view)
    cv2.circle(mask, tuple(int(one) for one in generator.integers(15, 45, 2)), 10, 255, -1)
    view[mask > 0] += 110
    for name, pixels in (("images", view), ("masks", mask)):
        path = folder / name / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = bytes(cv2.imencode(".png", pixels)[1].tobytes())
        path.write_bytes(data[:60] if (name, number) == ("images", BROKEN) else data)


def _row(folder: Path, number: int) -> dict[str, Any]:
    path = folder / "images" / f"{number:03d}.png"
    label = "well" if number % 2 else "ill"
    etag, size = local_etag(path.stat()), path.stat().st_size
    return image(number, label, uri=str(path), etag=etag, bytes=size)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Images and masks on disk, a bundle of a tiny network that calls most of them ill."""
    lake = LakeStore.open(str(tmp_path / "lake"), create=True)
    point = OperatingPoint(positive="ill", threshold=0.4, rule="youden")
    files = small_bundle(("ill", "well"), point=point)
    for name, data in files.items():
        lake.storage.put(f"models/tiny/1/{name}", data)
    config = parse_config(files["config.json"])
    for number in range(COUNT):
        _draw(tmp_path, number)
    scores = [float(np.float32(0.3 + 0.6 * n / COUNT)) for n in range(COUNT)]
    seed(
        lake,
        {
            "images": [_row(tmp_path, n) for n in range(COUNT)],
            "splits": [place(n, "test" if n % 3 else "train") for n in range(COUNT)],
            "models": [model_row(config, 1, nightly=False)],
            "predictions": [
                {
                    "image_id": image_id(n),
                    "model_id": config.model_id,
                    "scores": [ill, 1 - ill],
                    "score": max(ill, 1 - ill),
                }
                for n, ill in enumerate(scores)
            ],
        },
    )
    return lake


def _run(store: LakeStore, **changes: Any) -> Report:
    values = {"dataset": DATASET, "model": "tiny", "choose": "certain"} | changes
    report = explain.run(ExplainSpec.model_validate(values), _Here(), store)
    assert report.counts.input == sum(report.counts.to_dict().values()) - report.counts.input
    return report


def test_chosen_images_get_rows_figures_and_pictures(store: LakeStore, tmp_path: Path) -> None:
    report = _run(store, regions=str(tmp_path / "masks"))
    assert (report.status, report.counts.done, report.counts.rejected) == ("published", 23, 1)
    rows = store.query("SELECT * FROM explanations ORDER BY image_id").to_pylist()
    assert [row["image_id"] for row in rows] == [image_id(n) for n in range(COUNT) if n != BROKEN]
    labels = store.query("SELECT image_id, label FROM latest_predictions").to_pylist()
    said = {row["image_id"]: row["label"] for row in labels}
    for row in rows:
        assert row["target"] == said[row["image_id"]]
        assert row["region_source"] == str(tmp_path / "masks")
        assert row["layer"] == "bn2"
        mask = cv2.imread(f"{tmp_path}/masks/{int(row['image_id'], 16):03d}.png", 0)
        assert row["region_share"] == pytest.approx((mask > 0).mean(), rel=1e-3)
        if row["peak_x"] is not None:
            assert row["pointing_hit"] == bool(mask[int(row["peak_y"]), int(row["peak_x"])])
        picture = cv2.imread(f"{store.root}/{row['overlay']}")
        assert picture.shape[1] == 90 and picture.shape[0] > 60
        assert row["overlay"].endswith(f"/tiny/1/gradcam/{row['image_id']}-{row['target']}.jpg")
    energy = [row["energy_inside"] for row in rows if row["energy_inside"] is not None]
    hits = [row["pointing_hit"] for row in rows if row["pointing_hit"] is not None]
    assert report.facts["images with a region"] == len(energy) > 3
    assert report.facts["mean energy inside"] == pytest.approx(np.mean(energy), abs=1e-4)
    assert report.facts["pointing game hit rate"] == pytest.approx(np.mean(hits), abs=1e-4)
    assert report.facts["overlays"] == f"{store.root}/reports/explain/tiny/1/gradcam"
    (reject,) = store.query("SELECT * FROM rejects").to_pylist()
    assert (reject["image_id"], reject["stage"]) == (image_id(BROKEN), "explain")


def test_what_is_explained_is_up_to_date_until_something_changes(
    store: LakeStore, tmp_path: Path
) -> None:
    asked = {"regions": str(tmp_path / "masks"), "limit": 10}
    first = _run(store, **asked)
    assert (first.counts.done, first.counts.up_to_date) == (9, 0)
    again = _run(store, **asked, name="again", execution={"workers": 2})
    assert (again.status, again.counts.up_to_date) == ("up_to_date", 10)
    figures = ("images with a region", "mean energy inside", "pointing game hit rate")
    assert all(again.facts[name] == first.facts[name] for name in figures)

    more = _run(store, **asked | {"limit": 12})
    assert (more.counts.done, more.counts.up_to_date) == (2, 10)
    whole = store.query("SELECT energy_inside AS e FROM explanations WHERE e IS NOT NULL")
    assert more.facts["mean energy inside"] == pytest.approx(np.mean(whole["e"]), abs=1e-4)

    shown = store.query("SELECT image_id FROM explanations ORDER BY 1 DESC LIMIT 1")
    number = int(shown["image_id"][0].as_py(), 16)
    mask = tmp_path / "masks" / f"{number:03d}.png"
    mask.write_bytes(bytes(cv2.imencode(".png", np.full((60, 90), 255, np.uint8))[1].tobytes()))
    changed = _run(store, **asked)
    assert (changed.counts.done, changed.counts.up_to_date) == (1, 9)
    row = store.query(
        "SELECT region_share FROM explanations WHERE image_id = $id ORDER BY run_id DESC LIMIT 1",
        {"id": image_id(number)},
    )
    assert row["region_share"][0].as_py() == pytest.approx(1)

    few = asked | {"limit": 2}
    others = [{"method": "gradcam++", "layer": "blocks"}, {"opacity": 0.7}, {"target": "well"}]
    for change in others:
        assert _run(store, **few | change).counts.up_to_date == 0
        assert _run(store, **few | change).status == "up_to_date"
    folders = {path.name for path in Path(f"{store.root}/reports/explain/tiny/1").iterdir()}
    assert folders == {"gradcam", "gradcam++-blocks"}


def test_rejects_stand_until_the_file_changes_or_they_are_retried(
    store: LakeStore, tmp_path: Path
) -> None:
    query = f"SELECT image_id FROM images WHERE image_id = '{image_id(BROKEN)}'"
    asked: dict[str, Any] = {"choose": "query", "query": query}
    assert _run(store, **asked).counts.rejected == 1
    assert _run(store, **asked).counts.up_to_date == 1
    assert _run(store, **asked, retry_rejects=True).counts.rejected == 1
    good = tmp_path / "images" / "001.png"
    (tmp_path / "images" / f"{BROKEN:03d}.png").write_bytes(good.read_bytes())
    seed(store, {"images": [_row(tmp_path, BROKEN)]})
    assert _run(store, **asked).counts.done == 1


def test_an_interrupted_run_goes_on(store: LakeStore) -> None:
    class Dies(_Here):
        def run_shards(self, run: Run, execution: Execution) -> None:
            assert isinstance(run, LakeRun)
            root, plan = run.storage.root, run.plan
            process = ShardProcess(root, run.id, plan.kind, dict(plan.params))
            shard = run.pending()[0]
            process.run(ShardTask(shard, encode_rows(run.rows(shard)), {}))
            raise RuntimeError("the driver died")

    spec = ExplainSpec(dataset=DATASET, model="tiny", choose="certain")
    with pytest.raises(RuntimeError, match="driver died"):
        explain.run(spec, Dies(), store)
    assert not store.query("SELECT 1 FROM explanations").num_rows
    report = _run(store)
    assert (report.counts.done, report.counts.rejected) == (23, 1)
    counted = store.query(
        "SELECT count(DISTINCT image_id) AS n, count(*) AS rows FROM explanations"
    )
    assert counted.to_pylist() == [{"n": 23, "rows": 23}]


def test_nothing_wrong_is_nothing_to_do(store: LakeStore) -> None:
    query = "SELECT image_id FROM images WHERE false"
    report = _run(store, choose="query", query=query)
    assert (report.status, report.counts.input) == ("up_to_date", 0)
    assert report.facts["selected by the query"] == 0


def test_a_detector_is_refused_before_anything_starts(store: LakeStore) -> None:
    boxes = detector_config("boxes", "1122334455667788", classes=("ill", "well"))
    seed(store, {"models": [model_row(boxes, 1, nightly=False)]})
    spec = ExplainSpec.model_validate({"dataset": DATASET, "model": "boxes", "choose": "certain"})
    with pytest.raises(BundleError, match=r"no classifier \(boxes@1\): got centernet"):
        explain.plan(spec, store)
    with pytest.raises(BundleError, match="no classifier"):
        explain.run(spec, _Here(), store)
