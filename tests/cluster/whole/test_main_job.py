"""The main job end to end on generated X-rays, through the command, on an embedded Ray."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score

from tests.cluster.whole.conftest import Place

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("whole")]

SCORED = """
SELECT scores[2] AS positive, label AS actual,
       CASE WHEN scores[2] >= {threshold} THEN '{positive}' ELSE '{negative}' END AS predicted
FROM predictions
JOIN splits USING (image_id)
JOIN current_images USING (image_id)
WHERE part = 'test' AND split_name = 'chest-safe'
"""


def test_every_job_accounts_for_every_input(
    finished: tuple[Place, list[dict[str, Any]]],
) -> None:
    place, reports = finished
    assert [one["kind"] for one in reports] == [
        "phantoms", "ingest", "clean", "split", "prepare", "train", "score", "evaluate",
    ]  # fmt: skip
    for report in reports:
        counts = dict(report["counts"])
        assert counts.pop("input") == sum(counts.values()) > 0, report
        assert report["status"] == "published"
    by_kind = {one["kind"]: one["counts"] for one in reports}
    files = [path for path in (place.folder / "phantoms/images").rglob("*") if path.is_file()]
    assert by_kind["ingest"]["input"] == len(files)
    with (place.folder / "phantoms/broken.csv").open() as broken:
        assert by_kind["ingest"]["rejected"] == len(list(csv.DictReader(broken)))


def test_every_image_is_scored_exactly_once(done: Place) -> None:
    kept = {row["image_id"] for row in done.query("SELECT image_id FROM kept_images")}
    scored = [row["image_id"] for row in done.query("SELECT image_id FROM predictions")]
    assert sorted(scored) == sorted(kept)
    assert len(kept) > 100


def test_sql_alone_gives_the_figures_that_evaluate_wrote(done: Place) -> None:
    (model,) = done.query("SELECT classes, operating_point FROM models")
    negative, positive = model["classes"]
    point = model["operating_point"]
    threshold = re.search(r'"threshold": *([0-9.e-]+)', point)
    assert threshold and f'"positive": "{positive}"' in point.replace('":"', '": "')
    scored = SCORED.format(threshold=threshold[1], positive=positive, negative=negative)
    rows = done.query(scored)
    actual = np.array([row["actual"] == positive for row in rows])
    predicted = np.array([row["predicted"] == positive for row in rows])
    expected = {
        "auc": roc_auc_score(actual, [row["positive"] for row in rows]),
        "accuracy": accuracy_score(actual, predicted),
    }
    metrics = {
        (row["metric"], row["category"]): row["value"]
        for row in done.query("SELECT * FROM metrics WHERE part = 'test' AND model_id IS NOT NULL")
    }
    auc_by_sql = done.query(
        f"WITH scored AS ({scored}), "
        "ranked AS (SELECT *, rank() OVER (ORDER BY positive) "
        "+ (count(*) OVER (PARTITION BY positive) - 1) / 2.0 AS place FROM scored), "
        f"sides AS (SELECT count(*) FILTER (actual = '{positive}') AS p, count(*) AS n, "
        f"sum(place) FILTER (actual = '{positive}') AS places FROM ranked) "
        "SELECT (places - p * (p + 1) / 2.0) / (p * (n - p)) AS auc FROM sides"
    )
    assert auc_by_sql[0]["auc"] == pytest.approx(expected["auc"], abs=1e-9)
    overall = {name: value for (name, category), value in metrics.items() if not category}
    for name, value in expected.items():
        assert overall[name] == pytest.approx(value, abs=1e-6), name
    cells = confusion_matrix(actual, predicted, labels=[False, True])
    for i, truth in enumerate((negative, positive)):
        for j, guess in enumerate((negative, positive)):
            assert metrics["confusion", f"{truth}|{guess}"] == cells[i, j]


def test_a_second_run_does_nothing_and_says_so(done: Place) -> None:
    before = done.query("SELECT count(*) AS n FROM runs")
    ended = done.call("run", "job.yaml")
    assert ended.stdout.count("nothing to do") == 8
    assert done.query("SELECT count(*) AS n FROM runs") == before


def test_a_dry_run_in_an_empty_place_writes_nothing(tmp_path: Path, done: Place) -> None:
    place = Place(tmp_path / "empty", tmp_path / "empty/lake")
    place.folder.mkdir()
    (place.folder / "job.yaml").write_text((done.folder / "job.yaml").read_text())
    ended = place.call("plan", "job.yaml")
    assert "waits for" in ended.stdout
    assert sorted(one.name for one in place.folder.iterdir()) == ["job.yaml"]


def test_a_night_does_only_what_is_new(done: Place, tmp_path: Path) -> None:
    night = done.with_archive(tmp_path / "night", "clean", "score")
    kept = night.query("SELECT uri FROM kept_images WHERE dataset = 'other' AND len(uris) = 1")
    names = sorted(row["uri"].rpartition("/")[2] for row in kept)[:3]
    changed, gone, copied = (next((night.folder / "phantoms/images").rglob(name)) for name in names)
    changed.write_bytes(changed.read_bytes() + b"\0" * 7)  # other bytes, same picture
    gone.unlink()
    (copied.parent / f"zz-{copied.name}").write_bytes(copied.read_bytes())
    reports = {
        one["kind"]: one
        for one in night.run(
            "job.yaml", "--only", "other", "--only", "clean", "--only", "score",
            "--set", "other.metadata=null", "--set", "score.images=all",
        )
    }  # fmt: skip
    ingested = reports["ingest"]["counts"]
    assert ingested["gone"] == 1
    assert reports["clean"]["counts"]["done"] == 1
    assert reports["clean"]["counts"]["up_to_date"] > 100
    shared = night.query("SELECT uris FROM current_images WHERE len(uris) > 1")
    assert any(f"zz-{copied.name}" in "".join(row["uris"]) for row in shared)
    current = night.query("SELECT uri FROM current_images WHERE dataset = 'other'")
    assert not any(gone.name == row["uri"].rpartition("/")[2] for row in current)


def test_patients_appear_nowhere_in_the_clear(done: Place) -> None:
    with (done.folder / "phantoms/metadata.csv").open() as file:
        patients = {row["patient"] for row in csv.DictReader(file)}
    assert len(patients) > 10
    pattern = re.compile("|".join(map(re.escape, patients)).encode())
    for path in done.lake.rglob("*"):
        if path.is_file():
            assert not pattern.search(path.read_bytes()), path


def test_the_bundle_opens_in_timm(done: Place) -> None:
    import timm

    bundle = done.lake / "models/tiny/1"
    network = timm.create_model(f"local-dir:{bundle}", pretrained=True)
    assert network.num_classes == 2


def test_export_is_a_plain_snapshot(done: Place, tmp_path: Path) -> None:
    import pyarrow.dataset as pd

    done.call("export", str(tmp_path / "snapshot"), "predictions")
    rows = pd.dataset(tmp_path / "snapshot/predictions", format="parquet").to_table()
    assert rows.num_rows == len(done.query("SELECT 1 FROM predictions"))


def test_nothing_is_left_of_an_embedded_ray(done: Place) -> None:
    import tempfile

    left = [
        path
        for path in Path(tempfile.gettempdir()).glob("rayward-[0-9]*-*")
        if not Path(f"/proc/{path.name.split('-')[1]}").exists()
        and path.stat().st_mtime > (done.folder / "job.yaml").stat().st_mtime
    ]
    assert left == []
