"""Training and scoring from prepared pixels come out as from sources, and need no sources."""

import shutil
from pathlib import Path

import pytest

from tests.cluster.whole.conftest import Place

PREPARE = """
  - kind: prepare
    dataset: other
    preprocess: {size: 32}
    execution: {shard_images: 16}
  - kind: split
"""


@pytest.mark.cluster
def test_models_and_scores_do_not_depend_on_where_pixels_come_from(
    done: Place, tmp_path: Path
) -> None:
    place = done.with_archive(tmp_path / "archive")
    job = place.folder / "job.yaml"
    job.write_text(job.read_text().replace("\n  - kind: split\n", PREPARE))
    _, prepared, _ = place.run("job.yaml", *only("clean", "prepare", "safe"))
    kept = place.query("SELECT count(*) AS n FROM kept_images WHERE dataset = 'other'")[0]["n"]
    assert prepared["counts"]["done"] == kept
    assert place.run("job.yaml", "--only", "prepare")[0]["status"] == "up_to_date"

    # The backend is chosen by measured speed; here it must be the same twice.
    steps = ["job.yaml", *only("train", "score"), *changed(train="model=anew", score="model=anew")]
    steps += changed(score="backend=torch-fp32")
    from_sources = place.with_lake(tmp_path / "from-sources")
    from_sources.run(*steps, *changed(train="use_prepared=false", score="use_prepared=false"))
    shutil.rmtree(place.folder / "phantoms")
    _, scored = place.run(*steps)
    assert scored["counts"]["done"] == kept
    assert scored["counts"]["rejected"] == 0

    newest = "SELECT model_id, image_id, scores FROM latest_predictions WHERE name = 'anew'"
    ours, theirs = (
        sorted(one.query(newest), key=lambda row: row["image_id"]) for one in (place, from_sources)
    )
    assert {row["model_id"] for row in ours} == {row["model_id"] for row in theirs}
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["scores"] == pytest.approx(other["scores"], abs=1e-6)


def only(*names: str) -> list[str]:
    return [one for name in names for one in ("--only", name)]


def changed(**settings: str) -> list[str]:
    return [one for job, text in settings.items() for one in ("--set", f"{job}.{text}")]
