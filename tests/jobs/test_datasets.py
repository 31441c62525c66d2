"""A data set that the lake does not have is refused by every kind that takes one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cluster.kinds import KINDS
from cluster.lake.store import LakeStore
from cluster.nights.night import Night
from cluster.nights.scoring import run_scorings
from cluster.runner import plan_jobs
from jobs.bundles import model_row
from jobs.datasets import require_dataset
from schemas.errors import SourceError, SplitError
from schemas.jobfile import JobFile
from schemas.plan import Plan
from schemas.specs import SPECS
from schemas.specs.night import NightSpec
from schemas.specs.score import ScoreSpec
from schemas.tables import TABLES
from tests.jobs.detecting import CLASSES, SOURCE, detector_config, mark, put_detector
from tests.jobs.seeding import (
    DATASET,
    SPLIT,
    InlinePool,
    bundle_config,
    image,
    image_id,
    open_lake,
    seed,
)
from workers.pseudonyms import Pseudonymizer

STATED: Mapping[str, dict[str, Any]] = {
    "annotate": {"source": "headers", "dicom": {}},
    "profile": {"pictures": False},
    "clean": {},
    "prepare": {},
    "split": {},
    "pretrain": {"split": SPLIT, "model": "new"},
    "train": {"split": SPLIT, "model": "new"},
    "train_detector": {"split": SPLIT, "model": "new", "annotations": SOURCE},
    "score": {"model": "lungs"},
    "embed": {"model": "lungs"},
    "evaluate": {"split": SPLIT, "model": "lungs"},
    "evaluate_detector": {"split": SPLIT, "model": "finder", "annotations": SOURCE},
    "review": {"split": SPLIT, "models": ["finder"], "annotations": SOURCE},
    "explain": {"model": "lungs"},
}
"""What a job of each kind says at least."""

BY_IMAGE = ("annotate", "profile", "clean", "prepare", "score", "embed", "explain")
"""Kinds that have nothing to do where every image is gone."""


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    lake = open_lake(tmp_path)
    seed(
        lake,
        {
            "models": [model_row(bundle_config("lungs"), 1, nightly=False)],
            "annotations": [mark(number, CLASSES[0], (1, 1, 4, 4)) for number in range(40)],
        },
    )
    put_detector(lake, detector_config("finder", "ffeeddccbbaa9988"))
    return lake


def plan(kind: str, store: LakeStore, **changes: Any) -> Plan:
    spec = SPECS[kind].model_validate({"dataset": DATASET} | STATED[kind] | changes)
    return KINDS[kind].plan(spec, store)


def test_every_kind_that_takes_a_data_set_is_asked() -> None:
    takes = {kind for kind in KINDS if "dataset" in SPECS[kind].model_fields}
    assert takes - {"ingest"} == set(STATED)


@pytest.mark.parametrize("kind", STATED)
def test_a_mistyped_data_set_is_refused(store: LakeStore, kind: str) -> None:
    told = r"no such data set \(did you mean chests\?\).*got chest\. Its data sets: chests\."
    with pytest.raises(SourceError, match=told) as caught:
        plan(kind, store, dataset="chest")
    assert caught.value.where == store.root


def test_a_plan_waits_for_the_ingest_of_an_earlier_job(store: LakeStore, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    Pseudonymizer.from_key_file(create=True)
    cv2.imwrite(str(archive / "a.png"), np.zeros((48, 64), np.uint8))
    seed(store, {"models": [model_row(bundle_config("lungs"), 2, nightly=True)]})
    ingest = SPECS["ingest"].model_validate({"name": "later", "source": str(archive)})
    jobs = [
        SPECS[kind].model_validate({"name": kind, "dataset": "later"} | STATED[kind] | changes)
        for kind, changes in (
            (kind, {"model": "nightly"} if kind == "score" else {}) for kind in STATED
        )
    ]
    whole = JobFile(store.root, (ingest, *jobs), "jobs.yaml")
    first, *others = plan_jobs(whole, [])
    assert first.status == "planned"
    assert [one.kind for one in others] == list(STATED)
    assert {one.status for one in others} == {"waiting"}
    assert all(one.facts["waits for"] for one in others)
    for job in jobs:
        with pytest.raises(SourceError, match="no such data set"):
            list(plan_jobs(JobFile(store.root, (job,), "jobs.yaml"), []))


def test_a_night_over_a_mistyped_data_set_fails(store: LakeStore) -> None:
    seed(store, {"models": [model_row(bundle_config("lungs"), 2, nightly=True)]})
    night, pool = Night.begin(NightSpec()), InlinePool()
    for stated in ({"model": "nightly"}, {"model": "lungs", "budget": {"images": 5}}):
        spec = ScoreSpec.model_validate({"dataset": "chest"} | stated)
        with pytest.raises(SourceError, match="no such data set"):
            list(run_scorings(spec, store, pool, night))


def test_a_lake_without_a_data_set_says_so(tmp_path: Path) -> None:
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    with pytest.raises(SourceError, match="Its data sets: none; ingest one with `kind: ingest`"):
        require_dataset("chests", store)


@pytest.mark.parametrize("kind", ["evaluate", "evaluate_detector", "review", "score", "embed"])
def test_a_mistyped_split_is_refused(store: LakeStore, kind: str) -> None:
    told = rf"no images \(data set {DATASET}, split chest\).*{SPLIT} \(test, train, val\)"
    with pytest.raises(SplitError, match=told):
        plan(kind, store, split="chest")


def test_a_data_set_without_a_split_says_so(store: LakeStore) -> None:
    seed(store, {"images": [image(0, "well", dataset="others")]})
    with pytest.raises(SplitError, match="Splits of the data set: none; make one with"):
        plan("evaluate", store, dataset="others")


def test_explanations_ask_for_a_source_that_annotated_something(store: LakeStore) -> None:
    score = {"image_id": image_id(0), "model_id": "00112233aabbccdd", "scores": [0.1, 0.9]}
    seed(store, {"predictions": [score | {"score": 0.9}]})
    asked = {"choose": "certain", "limit": 1}
    assert plan("explain", store, annotations=SOURCE, **asked).inputs["boxes"][0].as_py() == [
        [1, 1, 4, 4]
    ]
    with pytest.raises(SourceError, match=f"got reader. Its sources: {SOURCE}"):
        plan("explain", store, annotations="reader", **asked)


@pytest.mark.parametrize("kind", BY_IMAGE)
def test_a_data_set_whose_images_are_all_gone_is_known(store: LakeStore, kind: str) -> None:
    label = {number: "well" if number % 4 < 2 else "ill" for number in range(40)}
    gone = [image(number, label[number], state="gone") for number in range(40)]
    seed(store, {"images": gone})
    planned = plan(kind, store)
    assert (planned.inputs.num_rows, planned.counts.input) == (0, 0)


def test_places_of_images_that_are_gone_are_places(store: LakeStore) -> None:
    seed(store, {"images": [image(number, "well", state="gone") for number in range(40)]})
    for kind in ("score", "embed", "evaluate"):
        assert plan(kind, store, split=SPLIT).inputs.num_rows == 0


def test_a_data_set_of_which_every_file_was_rejected_is_known(tmp_path: Path) -> None:
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    seed(store, {"rejects": [{"uri": "archive/0.png", "stage": "ingest", "reason": "corrupt"}]})
    require_dataset("seed", store)  # `seed` publishes as the ingest of a data set of that name
    assert TABLES["rejects"].schema.get_field_index("dataset") < 0, "then ask there"
