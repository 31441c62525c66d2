"""Planning what to prepare, and preparing from plan to published rows in this process."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from jobs import prepare
from schemas.plan import Blob
from schemas.protocols import Run
from schemas.reasons import RejectReason
from schemas.specs.base import Execution
from schemas.specs.prepare import PrepareSpec
from schemas.tables import TABLES
from tests.jobs.seeding import DATASET, InlinePool, image, image_id, open_lake, seed
from workers import preparing
from workers.pixels.encoding import decode
from workers.pixels.steps import Recipe

RECIPE = Recipe(size=32)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Forty images, of which cleaning dropped number 5."""
    return open_lake(tmp_path)


def spec(**changes: Any) -> PrepareSpec:
    return PrepareSpec.model_validate({"dataset": DATASET, "preprocess": {"size": 32}} | changes)


def pixels_of(number: int, recipe: str = RECIPE.hash) -> dict[str, Any]:
    return {
        "image_id": image_id(number),
        "recipe": recipe,
        "height": 32,
        "width": 32,
        "pixels": b"\x01" + bytes(32 * 32),
        "geometry": "{}",
    }


def planned(store: LakeStore, job: PrepareSpec) -> list[int]:
    return [int(one, 16) for one in prepare.plan(job, store).inputs["image_id"].to_pylist()]


def picture(number: int) -> bytes:
    view = np.random.default_rng(number).integers(0, 256, (40, 60), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(view).save(file, "png")
    return file.getvalue()


class PreparingPool(InlinePool):
    """Prepares a run's shards from bytes held in memory."""

    def __init__(self, files: Mapping[str, Blob]) -> None:
        super().__init__()
        self.files = files

    def run_shards(self, run: Run, execution: Execution) -> None:
        assert isinstance(run, LakeRun)
        work = preparing.load(run.plan.params)
        for shard in run.pending():
            rows = run.rows(shard)
            run.record(shard, work(rows, [self.files[uri] for uri in rows["uri"].to_pylist()]))


def files(numbers: range) -> dict[str, Blob]:
    return {image(number, None)["uri"]: picture(number) for number in numbers}


def test_kept_images_without_pixels_are_planned(store: LakeStore) -> None:
    seed(store, {"prepared": [pixels_of(number) for number in range(3)]})
    plan = prepare.plan(spec(execution={"shard_images": 10}), store)
    assert planned(store, spec()) == [number for number in range(3, 40) if number != 5]
    assert plan.bounds == (0, 10, 20, 30, 36)
    assert plan.counts.up_to_date == 3
    assert plan.facts == {"recipe": RECIPE.hash, "size": 32}
    assert plan.inputs.column_names == ["image_id", "uri", "frame", "etag", "bytes"]


def test_all_images_are_another_run_of_the_same_recipe(store: LakeStore) -> None:
    kept, everything = (prepare.plan(spec(images=images), store) for images in ("kept", "all"))
    assert everything.inputs.num_rows == kept.inputs.num_rows + 1 == 40
    assert everything.key == kept.key
    assert everything.fingerprint != kept.fingerprint


def test_pixels_of_another_recipe_count_for_nothing(store: LakeStore) -> None:
    other = Recipe(size=32, channels=3)
    seed(store, {"prepared": [pixels_of(number, other.hash) for number in range(40)]})
    assert len(planned(store, spec())) == 39
    assert planned(store, spec(preprocess={"size": 32, "channels": 3})) == []


def test_data_sets_share_pixels_and_the_lease_of_a_recipe(store: LakeStore) -> None:
    seed(store, {"images": [image(1, None, dataset="elsewhere")]})
    seed(store, {"prepared": [pixels_of(1)]})
    elsewhere = prepare.plan(spec(dataset="elsewhere", images="all"), store)
    assert (elsewhere.inputs.num_rows, elsewhere.counts.up_to_date) == (0, 1)
    assert elsewhere.key == prepare.plan(spec(), store).key == ("prepare", RECIPE.hash)
    assert elsewhere.fingerprint != prepare.plan(spec(images="all"), store).fingerprint


def test_only_rejects_that_say_something_of_the_bytes_stand(store: LakeStore) -> None:
    reasons = dict(enumerate(RejectReason, start=13))
    why = {"stage": "prepare", "subject": prepare.subject(spec())}
    rejects = [
        why | {"image_id": image_id(number), "etag": f"e{number}", "reason": reason.value}
        for number, reason in reasons.items()
    ]
    seed(store, {"rejects": rejects})
    again = {"unreadable", "gone_during_run", "changed_during_run", "out_of_memory"}
    assert {reasons[number] for number in planned(store, spec()) if number in reasons} == again
    assert prepare.plan(spec(), store).counts.up_to_date == len(reasons) - len(again)
    assert reasons.keys() <= set(planned(store, spec(retry_rejects=True)))


def test_rejects_of_other_bytes_recipes_stages_and_decoders_do_not_stand(
    store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = {"stage": "prepare", "subject": prepare.subject(spec()), "reason": "corrupt"}
    rejects = [
        why | {"image_id": image_id(8), "etag": "older"},
        why | {"image_id": image_id(9), "etag": "e9", "subject": "another-recipe"},
        why | {"image_id": image_id(10), "etag": "e10", "stage": "clean"},
        why | {"image_id": image_id(11), "etag": "e11"},
        why | {"image_id": image_id(12), "etag": "e12", "subject": RECIPE.hash},
    ]
    seed(store, {"rejects": rejects})
    assert {11, 12}.isdisjoint(planned(store, spec()))
    assert {8, 9, 10} <= set(planned(store, spec()))
    monkeypatch.setattr(prepare, "DECODER_VERSION", "newer")
    # What a discarded run rejected has nothing to do with decoders.
    assert set(range(40)) - set(planned(store, spec())) == {5, 12}


def test_images_of_a_held_run_wait(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(key: tuple[str, ...]) -> pa.Array:
        assert key == ("prepare", RECIPE.hash)
        return pa.array([image_id(0), image_id(1)])

    monkeypatch.setattr(store, "held_images", held)
    seed(store, {"prepared": [pixels_of(2)]})
    plan = prepare.plan(spec(), store)
    assert planned(store, spec())[:2] == [3, 4]
    assert (plan.counts.held, plan.counts.up_to_date) == (2, 1)


def test_what_enters_the_fingerprint(store: LakeStore) -> None:
    base = prepare.plan(spec(), store).fingerprint
    faster = spec(name="x", max_reject_share=1, execution={"shard_images": 3, "workers": 1})
    assert prepare.plan(faster, store).fingerprint == base
    for change in ({"size": 33}, {"resize": "stretch"}, {"window": [40, 400]}):
        other = spec(preprocess={"size": 32} | change)
        assert prepare.plan(other, store).fingerprint != base
        assert prepare.key(other) != prepare.key(spec())


def test_shards_are_cut_by_what_they_make_too(store: LakeStore) -> None:
    # 1,000 bytes of source and 3 x 64 x 64 bytes of pixels an image, 100,000 a shard.
    job = spec(preprocess={"size": 64, "channels": 3}, execution={"shard_bytes": 100_000})
    assert prepare.plan(job, store).bounds[:3] == (0, 7, 14)


def test_pixels_are_published_once(store: LakeStore) -> None:
    blobs = files(range(40)) | {image(7, None)["uri"]: picture(7)[:300]}
    job = spec(execution={"shard_images": 16})
    report = prepare.run(job, PreparingPool(blobs), store)
    assert (report.status, report.counts.input) == ("published", 39)
    assert (report.counts.done, report.counts.rejected) == (38, 1)
    assert report.facts["pixel bytes"] == 38 * 32 * 32
    rows = store.query("SELECT * FROM prepared ORDER BY image_id").to_pylist()
    assert [int(row["image_id"], 16) for row in rows] == [
        number for number in range(40) if number not in (5, 7)
    ]
    assert {row["recipe"] for row in rows} == {RECIPE.hash}
    assert all(decode(row["pixels"], row["height"], row["width"]).any() for row in rows)
    (reject,) = store.query("SELECT * FROM rejects").to_pylist()
    assert (reject["image_id"], reject["stage"]) == (image_id(7), "prepare")
    assert reject["subject"] == prepare.subject(spec())

    again = prepare.run(job, PreparingPool({}), store)
    assert (again.status, again.counts.up_to_date) == ("up_to_date", 39)
    seed(store, {"images": [image(99, None)]})
    more = prepare.run(spec(images="all"), PreparingPool(files(range(100))), store)
    assert (more.counts.done, more.counts.up_to_date) == (2, 39)
    assert store.query("SELECT count(*) AS n FROM prepared")["n"][0].as_py() == 40


def test_files_hold_pixels_as_measured(store: LakeStore) -> None:
    seed(store, {"images": [image(number, None) for number in range(40, 100)]})
    prepare.run(spec(images="all"), PreparingPool(files(range(100))), store)
    (path,) = Path(store.root, "tables", "prepared").rglob("*.parquet")
    assert path.parent.name == f"recipe={RECIPE.hash}"
    written = pq.ParquetFile(path).metadata
    assert [written.row_group(n).num_rows for n in range(written.num_row_groups)] == [64, 36]
    names = [one for one in TABLES["prepared"].schema.names if one != "recipe"]
    pixels = written.row_group(0).column(names.index("pixels"))
    assert pixels.compression == "LZ4"
    assert pixels.statistics is None
    assert not pixels.has_dictionary_page
    assert written.row_group(0).column(0).statistics.min == image_id(0)
