"""Cleaning from plan to published rows, in this process."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cluster.lake.runs import FINISH, LakeRun
from cluster.lake.store import LakeStore
from jobs import clean
from schemas.errors import RejectedImage
from schemas.plan import Blob
from schemas.protocols import Run
from schemas.reasons import RejectReason
from schemas.specs.base import Execution
from schemas.specs.clean import CleanSpec
from tests.jobs.seeding import DATASET, image, image_id, seed
from workers import cleaning


def spec(**changes: Any) -> CleanSpec:
    # Generated textures are smooth: these tests are not about blur.
    return CleanSpec.model_validate({"dataset": DATASET, "min_sharpness": 0} | changes)


def texture(number: int, size: tuple[int, int] = (96, 80)) -> np.ndarray:
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def png(view: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(view).save(file, "png")
    return file.getvalue()


def brighter(view: np.ndarray) -> np.ndarray:
    """The same picture with one bright pixel: another file, nearly the same hash."""
    changed = view.copy()
    changed[3, 4] = 255 - changed[3, 4]
    return changed


class CleaningPool:
    """Computes a run's shards and finishing step from bytes held in memory."""

    def __init__(self, files: Mapping[str, Blob]) -> None:
        self.files = files

    def run_shards(self, run: Run, execution: Execution) -> None:
        assert isinstance(run, LakeRun)
        work = cleaning.load(run.plan.params)
        for shard in run.pending():
            rows = run.rows(shard)
            run.record(shard, work(rows, [self.files[uri] for uri in rows["uri"].to_pylist()]))

    def finish(self, run: Run) -> None:
        assert isinstance(run, LakeRun)
        run.record(FINISH, cleaning.load_finish(run.plan.params)(run.staged_tables()))

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        raise NotImplementedError


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.open(str(tmp_path / "lake"), create=True)


def catalogue(store: LakeStore, numbers: range, **changes: Any) -> None:
    seed(store, {"images": [image(number, "well", **changes) for number in numbers]})


def uri(number: int) -> str:
    return image(number, None)["uri"]


def quality(store: LakeStore, recipe: str) -> dict[str, dict[str, Any]]:
    rows = store.query("SELECT * FROM quality WHERE recipe = $recipe", {"recipe": recipe})
    found = {row["image_id"]: row for row in rows.to_pylist()}
    assert len(found) == rows.num_rows, "one row an image"
    return found


def corpus() -> dict[str, Blob]:
    """Nine files: fine, a near-duplicate, small, blank, dark, broken, changed, and two fine."""
    views = {number: texture(number) for number in (0, 7, 8)}
    views[1] = brighter(views[0])
    views[2] = texture(2, (96, 40))
    views[3] = np.full((80, 96), 77, np.uint8)
    views[4] = (texture(4) // 50).astype(np.uint8)
    files: dict[str, Blob] = {uri(number): png(view) for number, view in views.items()}
    files[uri(5)] = png(texture(5))[:300]
    files[uri(6)] = RejectedImage(RejectReason.CHANGED_DURING_RUN, "other size")
    return files


def test_every_image_gets_its_verdict(store: LakeStore) -> None:
    catalogue(store, range(9))
    job = spec(min_side=60, min_contrast=0.5, execution={"shard_images": 4})
    report = clean.run(job, CleaningPool(corpus()), store)

    assert (report.status, report.counts.input) == ("published", 9)
    assert (report.counts.done, report.counts.rejected) == (7, 2)
    assert report.facts["kept"] == 3
    assert not any(name.startswith("repeat") for name in report.facts), "of one patient and label"
    found = quality(store, clean.recipe(job))
    reasons = {int(key, 16): row["reason"] for key, row in found.items()}
    assert reasons == {
        0: None,
        7: None,
        8: None,
        1: "near_duplicate",
        2: "too_small",
        3: "blank",
        4: "dark",
    }
    assert found[image_id(1)]["duplicate_of"] == image_id(0)
    assert {key for key, row in found.items() if row["kept"]} == {
        image_id(number) for number in (0, 7, 8)
    }
    with Image.open(io.BytesIO(png(texture(7)))) as picture:
        assert found[image_id(7)]["phash"] == str(imagehash.phash(picture))
    assert found[image_id(7)]["brightness"] == pytest.approx(texture(7).mean())

    rejects = store.query("SELECT * FROM rejects ORDER BY uri").to_pylist()
    assert [(row["image_id"], row["stage"]) for row in rejects] == [
        (image_id(5), "clean"),
        (image_id(6), "clean"),
    ]
    assert rejects[0]["reason"] in {"truncated", "corrupt"}
    assert rejects[1]["reason"] == "changed_during_run"
    assert rejects[1]["etag"] == "e6"


def test_nothing_new_does_nothing(store: LakeStore) -> None:
    catalogue(store, range(9))
    files = corpus()
    clean.run(spec(), CleaningPool(files), store)
    transient = clean.plan(spec(), store)
    assert transient.inputs["image_id"].to_pylist() == [image_id(6)]
    files[uri(6)] = png(texture(6))
    assert clean.run(spec(), CleaningPool(files), store).counts.done == 1
    plan = clean.plan(spec(), store)
    assert plan.inputs.num_rows == 0
    assert plan.counts.up_to_date == 9
    assert clean.run(spec(), CleaningPool({}), store).status == "up_to_date"


def test_rejects_stand_until_told_otherwise_or_changed(store: LakeStore) -> None:
    catalogue(store, range(9))
    clean.run(spec(), CleaningPool(corpus()), store)
    again = clean.plan(spec(retry_rejects=True), store)
    assert again.inputs["image_id"].to_pylist() == [image_id(5), image_id(6)]
    catalogue(store, range(5, 6), image_id=image_id(55), etag="new")
    planned = clean.plan(spec(), store).inputs["image_id"].to_pylist()
    assert planned == [image_id(55), image_id(6)]


@pytest.mark.parametrize("reason", list(RejectReason))
def test_only_rejects_that_say_something_of_the_bytes_stand(
    store: LakeStore, reason: RejectReason
) -> None:
    catalogue(store, range(1))
    why = {"stage": "clean", "subject": clean.subject(spec()), "reason": reason.value}
    seed(store, {"rejects": [{**why, "image_id": image_id(0), "etag": "e0"}]})
    again = {"unreadable", "gone_during_run", "changed_during_run", "out_of_memory"}
    assert clean.plan(spec(), store).inputs.num_rows == (reason in again)


def test_rules_that_come_back_judge_again(store: LakeStore) -> None:
    catalogue(store, range(9))
    files = corpus() | {uri(6): png(texture(6))}
    first, other = spec(), spec(min_side=4000)

    def kept() -> int:
        return int(store.query("SELECT count(*) AS n FROM kept_images")["n"][0].as_py())

    def staged_before(job: CleanSpec) -> int:
        return int(clean.plan(job, store).staged["_kept_before"].num_rows)

    clean.run(first, CleaningPool(files), store)
    by_first = kept()
    assert by_first > 2
    clean.run(other, CleaningPool(files), store)
    assert kept() == 0
    assert clean.plan(first, store).inputs.num_rows == 8
    assert staged_before(first) == 0
    assert clean.run(first, CleaningPool(files), store).status == "published"
    assert kept() == by_first
    assert clean.run(first, CleaningPool({}), store).status == "up_to_date"
    catalogue(store, range(20, 21))
    assert staged_before(first) == by_first
    assert staged_before(other) == 0


def test_new_images_are_near_duplicates_of_those_kept_earlier(store: LakeStore) -> None:
    catalogue(store, range(9))
    job = spec(min_contrast=0.5)
    clean.run(job, CleaningPool(corpus() | {uri(6): b""}), store)
    catalogue(store, range(10, 13))
    files: dict[str, Blob] = {
        uri(10): png(brighter(brighter(texture(7))[:, ::-1])[:, ::-1]),
        uri(11): png(texture(11)),
        uri(12): png(brighter(texture(11))),
    }
    plan = clean.plan(job, store)
    before = plan.staged["_kept_before"]
    kept = {key for key, row in quality(store, clean.recipe(job)).items() if row["kept"]}
    assert set(before["image_id"].to_pylist()) == kept
    report = clean.run(job, CleaningPool(files), store)
    assert (report.counts.done, report.counts.up_to_date) == (3, 9)
    found = quality(store, clean.recipe(job))
    assert found[image_id(10)]["duplicate_of"] == image_id(7)
    assert found[image_id(11)]["kept"]
    assert found[image_id(12)]["duplicate_of"] == image_id(11)


def test_repeats_of_other_patients_and_labels_are_told(store: LakeStore) -> None:
    rows = [
        image(0, "cyst", patient_id="p1"),
        image(1, "cyst", patient_id="p2"),
        image(2, "none", patient_id="p1"),
        image(3, None, patient_id=None),
    ]
    seed(store, {"images": rows})
    view = texture(0)
    views = [view, brighter(view), brighter(view[:, ::-1])[:, ::-1], brighter(view[::-1])[::-1]]
    files: dict[str, Blob] = {uri(number): png(view) for number, view in enumerate(views)}
    report = clean.run(spec(), CleaningPool(files), store)
    assert report.facts["near_duplicate"] == 3
    assert report.facts["repeat another patient's"] == 1
    assert report.facts["repeat one of another label"] == 1


def test_images_gone_from_the_archive_shadow_no_new_ones(store: LakeStore) -> None:
    catalogue(store, range(7, 9))
    clean.run(spec(), CleaningPool(corpus()), store)
    catalogue(store, range(7, 8), state="gone")
    catalogue(store, range(20, 21))
    files: dict[str, Blob] = {uri(20): png(brighter(texture(7)))}
    clean.run(spec(), CleaningPool(files), store)
    assert quality(store, clean.recipe(spec()))[image_id(20)]["kept"]


def retouched(view: np.ndarray, row: int) -> np.ndarray:
    """The same picture with another bright pixel."""
    changed = view.copy()
    changed[row, 4] = 255 - changed[row, 4]
    return changed


def alike() -> dict[str, Blob]:
    """Three files that look the same, and one that does not."""
    views = [texture(0), retouched(texture(0), 3), retouched(texture(0), 60), texture(3)]
    return {uri(number): png(view) for number, view in enumerate(views)}


def originals(store: LakeStore) -> dict[int, int | None]:
    """By each image that has a verdict, the one it repeats; None where it is kept."""
    rows = store.query("SELECT image_id, duplicate_of, kept FROM current_quality").to_pylist()
    assert all(row["kept"] == (row["duplicate_of"] is None) for row in rows)
    return {
        int(row["image_id"], 16): None if row["kept"] else int(row["duplicate_of"], 16)
        for row in rows
    }


def planned(store: LakeStore, job: CleanSpec) -> list[int]:
    return [int(one, 16) for one in clean.plan(job, store).inputs["image_id"].to_pylist()]


def test_duplicates_of_an_image_that_is_gone_are_judged_again(store: LakeStore) -> None:
    catalogue(store, range(4))
    clean.run(spec(), CleaningPool(alike()), store)
    assert originals(store) == {0: None, 1: 0, 2: 0, 3: None}
    catalogue(store, range(1), state="gone")
    plan = clean.plan(spec(), store)
    assert (plan.inputs["image_id"].to_pylist(), plan.counts.up_to_date) == (
        [image_id(1), image_id(2)],
        1,
    )
    report = clean.run(spec(), CleaningPool(alike()), store)
    assert (report.status, report.counts.done, report.counts.up_to_date) == ("published", 2, 1)
    assert originals(store) == {0: None, 1: None, 2: 1, 3: None}
    assert store.query("SELECT count(*) AS n FROM kept_images")["n"].to_pylist() == [2]
    assert clean.run(spec(), CleaningPool({}), store).status == "up_to_date"
    # The next one in line goes as well.
    catalogue(store, range(1, 2), state="gone")
    clean.run(spec(), CleaningPool(alike()), store)
    assert originals(store) == {0: None, 1: None, 2: None, 3: None}
    assert clean.run(spec(), CleaningPool({}), store).status == "up_to_date"


def test_an_image_gone_from_one_of_two_places_keeps_its_duplicates(store: LakeStore) -> None:
    catalogue(store, range(4))
    catalogue(store, range(1), uri="archive/elsewhere.png")
    clean.run(spec(), CleaningPool(alike() | {"archive/0000.png": png(texture(0))}), store)
    catalogue(store, range(1), uri="archive/elsewhere.png", state="gone")
    assert planned(store, spec()) == []
    catalogue(store, range(1), state="gone")
    # One of another data set is no original of this one's.
    catalogue(store, range(1), dataset="others")
    assert planned(store, spec()) == [1, 2]


@pytest.mark.parametrize("recipe", [None, "other rules"])
def test_duplicates_of_an_image_that_is_kept_no_more_are_judged_again(
    store: LakeStore, recipe: str | None
) -> None:
    catalogue(store, range(4))
    job = spec()
    clean.run(job, CleaningPool(alike()), store)
    verdict = {"image_id": image_id(0), "dataset": DATASET, "recipe": recipe or clean.recipe(job)}
    seed(store, {"quality": [verdict | {"kept": recipe is not None, "reason": "dark"}]})
    wanted = [1, 2] if recipe is None else [0, 1, 2]
    assert planned(store, job) == wanted
    clean.run(job, CleaningPool(alike()), store)
    kept = store.query("SELECT image_id FROM kept_images ORDER BY image_id")["image_id"].to_pylist()
    assert kept == [image_id(1 if recipe is None else 0), image_id(3)]
    assert clean.run(job, CleaningPool({}), store).status == "up_to_date"


def test_a_duplicate_that_can_not_be_read_any_more_is_asked_for_once(store: LakeStore) -> None:
    catalogue(store, range(4))
    clean.run(spec(), CleaningPool(alike()), store)
    catalogue(store, range(1), state="gone")
    report = clean.run(spec(), CleaningPool(alike() | {uri(1): png(texture(0))[:300]}), store)
    assert (report.counts.done, report.counts.rejected) == (1, 1)
    assert originals(store)[2] is None
    assert clean.run(spec(), CleaningPool({}), store).status == "up_to_date"


def test_shard_sizes_change_nothing(tmp_path: Path) -> None:
    tables = []
    for images in (1, 3, 100):
        store = LakeStore.open(str(tmp_path / f"lake{images}"), create=True)
        catalogue(store, range(9))
        clean.run(spec(execution={"shard_images": images}), CleaningPool(corpus()), store)
        rows = store.query("SELECT * EXCLUDE (run_id) FROM quality ORDER BY image_id")
        tables.append(rows)
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_rules_make_the_recipe_and_speed_does_not() -> None:
    base = clean.recipe(spec())
    changed = [
        spec(min_side=401),
        spec(phash={"max_distance": 6}),
        spec(phash=None),
        spec(min_contrast=3),
        spec(min_brightness=9),
        spec(min_sharpness=0.5),
        spec(dataset="others"),
    ]
    assert len({base, *(clean.recipe(one) for one in changed)}) == 8
    assert clean.recipe(spec(execution={"shard_images": 2}, max_reject_share=0.5)) == base


def test_near_duplicates_are_kept_where_nobody_asks(store: LakeStore) -> None:
    catalogue(store, range(2))
    report = clean.run(spec(phash=None), CleaningPool(corpus()), store)
    assert report.facts["kept"] == 2


def test_finishing_without_any_image_writes_nothing() -> None:
    finish = cleaning.load_finish({"dataset": DATASET, "recipe": "r", "max_distance": 4})
    result = finish({})
    assert result.tables["quality"].num_rows == 0
    assert isinstance(result.tables["quality"], pa.Table)
