"""Training and scoring from prepared pixels come out as from sources, and need no sources."""

from pathlib import Path

import pytest

from tests.cluster.whole.conftest import Place

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("whole")]

TRAIN_AND_SCORE = ("--only", "train", "--only", "score")
FROM_SOURCES = ("--set", "train.use_prepared=false", "--set", "score.use_prepared=false")


def scores_of(place: Place) -> dict[tuple[str, str], list[float]]:
    rows = place.query("SELECT model_id, image_id, scores FROM predictions")
    return {(row["model_id"], row["image_id"]): row["scores"] for row in rows}


def test_models_and_scores_do_not_depend_on_where_pixels_come_from(
    done: Place, tmp_path: Path
) -> None:
    place = done.with_lake(tmp_path / "sources", without=("predictions", "models", "_runs"))
    place.run("job.yaml", *TRAIN_AND_SCORE, *FROM_SOURCES)
    ours, theirs = scores_of(done), scores_of(place)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 100
    for key, scores in ours.items():
        assert scores == pytest.approx(theirs[key], abs=1e-6)


@pytest.mark.slow
def test_prepared_pixels_need_no_sources(done: Place, tmp_path: Path) -> None:
    place = done.with_lake(tmp_path / "prepared", without=("predictions",))
    archive = done.folder / "phantoms"
    away = archive.rename(tmp_path / "away")
    try:
        (scored,) = place.run("job.yaml", "--only", "score")
    finally:
        away.rename(archive)
    assert scored["counts"]["rejected"] == 0
    assert scores_of(place).keys() == scores_of(done).keys()
