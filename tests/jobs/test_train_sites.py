"""Training on the images of some sites only."""

from pathlib import Path
from typing import Any

import pytest

from cluster.lake.store import LakeStore
from jobs import train
from schemas.errors import LeakError, SplitError
from schemas.specs.train import TrainSpec
from tests.jobs.seeding import (
    DATASET,
    SPLIT,
    bundle_config,
    image,
    open_lake,
    place,
    seed,
)
from workers.models.classifier.card import model_card

NORTH = {*range(12), *range(24, 28), *range(32, 36)}
"""Images 0 to 11 of train, 24 to 27 of val and 32 to 35 of test; the others lie in the south."""


def spec(**changes: Any) -> TrainSpec:
    values = {"dataset": DATASET, "split": SPLIT, "model": "lungs"}
    return TrainSpec.model_validate(values | changes)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    lake = open_lake(tmp_path)
    labels = ["well" if number % 4 < 2 else "ill" for number in range(40)]
    sited = [
        image(n, labels[n], site=None if n == 31 else "North" if n in NORTH else "South")
        for n in range(40)
    ]
    seed(lake, {"images": sited})
    return lake


def numbers(store: LakeStore, **changes: Any) -> set[int]:
    rows = train.plan(spec(**changes), store).inputs
    return {int(one, 16) for one in rows["image_id"].to_pylist()}


def test_train_and_val_are_of_the_sites_that_are_named(store: LakeStore) -> None:
    assert numbers(store, sites=["North"]) == NORTH - set(range(32, 40))
    assert numbers(store, sites=["South"]) == set(range(31)) - NORTH
    assert numbers(store, sites=["North", "South"]) == set(range(31)), "31 has no site"
    assert numbers(store) == set(range(32))


def test_folds_and_sites_go_together(store: LakeStore) -> None:
    seed(store, {"splits": [place(n, "train", fold=n // 4 % 3) for n in range(24)]})
    held_out = {n for n in range(24) if n // 4 % 3 == 2}
    assert numbers(store, sites=["North"], fold=2) == (NORTH & set(range(24))) - held_out


def test_sites_enter_the_identity_the_bundle_and_its_card(store: LakeStore) -> None:
    plans = {sites: train.plan(spec(sites=sites), store) for sites in ((), ("North",), ("South",))}
    assert len({one.fingerprint for one in plans.values()}) == 3
    data = {sites: one.params["bundle"]["data"] for sites, one in plans.items()}
    assert data["North",]["train"] == {"ill": 6, "well": 6}
    assert "- sites: North\n" in model_card(bundle_config("lungs", data=data["North",]))
    assert "sites" not in data[()]


def test_of_two_uris_the_first_with_a_site_counts(store: LakeStore) -> None:
    # Image 0 lies in the north at archive/0000.png; a copy of it lies in the south.
    seed(store, {"images": [image(0, "well", uri="archive/copy.png", site="South")]})
    assert 0 in numbers(store, sites=["North"])
    assert 0 not in numbers(store, sites=["South"])
    # Image 31 has no site, but its copy has one.
    seed(store, {"images": [image(31, "ill", uri="archive/copy31.png", site="South")]})
    assert 31 in numbers(store, sites=["South"])


def test_sites_without_images_are_refused_with_those_that_have_some(store: LakeStore) -> None:
    wanted = r"got East, north\. Sites there: North: 16 images, South: 15 images, without a site: 1"
    with pytest.raises(SplitError, match=wanted):
        train.plan(spec(sites=["East", "South", "north"]), store)
    with pytest.raises(SplitError, match="none, the split has no image"):
        train.plan(spec(sites=["North"], split="another"), store)


def test_a_site_without_a_class_is_refused(store: LakeStore) -> None:
    seed(store, {"images": [image(30, "ill", site="West"), image(1, "ill", site="West")]})
    with pytest.raises(SplitError, match="no well in train, no well in val"):
        train.plan(spec(sites=["West"], classes=["ill", "well"]), store)


def test_leaks_count_among_all_sites(store: LakeStore) -> None:
    # A patient of the south, in train and in test: the north alone has no leak of its own.
    seed(
        store,
        {
            "images": [
                image(12, "well", patient_id="p38", site="South"),
                image(38, "ill", patient_id="p38", site="South"),
            ]
        },
    )
    with pytest.raises(LeakError, match="1 patients"):
        train.plan(spec(sites=["North"]), store)
    assert numbers(store, sites=["North"], allow_leaks=True) == NORTH - set(range(32, 40))
