"""Planning a detector's training: which images, which boxes, which classes, when nothing is new."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.lake.store import LakeStore
from jobs import train_detector
from jobs.train_detector.settings import training_config, training_identity
from schemas.errors import BundleError, LeakError, SplitError
from schemas.specs.train_detector import DetectorSpec
from tests.jobs.detecting import rejected
from tests.jobs.seeding import DATASET, SPLIT, image, image_id, open_lake, place, seed
from workers.detection.config import DetectorConfig
from workers.training.config import EVERY_BLOCK

SOURCE = "reader"


def _spec(**changes: Any) -> DetectorSpec:
    values = {
        "dataset": DATASET,
        "split": SPLIT,
        "model": "lesions",
        "name": "fit",
        "annotations": SOURCE,
    }
    return DetectorSpec.model_validate(values | changes)


def box(number: int, category: str | None, **changes: Any) -> dict[str, Any]:
    """A row of `annotations`."""
    row = {
        "image_id": image_id(number),
        "source": SOURCE,
        "category": category,
        "x": 10.0 + number,
        "y": 20.0,
        "w": 30.0,
        "h": 15.0,
        "area": 450.0,
        "iscrowd": False,
        "made_from": "m",
    }
    return row | changes


def empty(number: int) -> dict[str, Any]:
    """A row that says an image was looked at and has no box."""
    return {"image_id": image_id(number), "source": SOURCE, "made_from": "m"}


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """24 images to train on, of which 20 were looked at and two have no box; 8 to validate."""
    found = open_lake(tmp_path)
    rows = [box(n, "cyst" if n % 2 else "mass") for n in range(18)] + [empty(18), empty(19)]
    rows += [box(n, "cyst") for n in range(24, 32)]
    seed(found, {"annotations": rows})
    return found


def _marks(plan: Any, number: int) -> tuple[list[float], list[int], list[bool]]:
    (row,) = [one for one in plan.inputs.to_pylist() if one["image_id"] == image_id(number)]
    return row["boxes"], row["categories"], row["ignored"]


def test_annotated_images_are_planned_with_boxes_and_without(store: LakeStore) -> None:
    plan = train_detector.plan(_spec(), store)
    numbers = [*range(20), *range(24, 32)]
    assert plan.inputs["image_id"].to_pylist() == [image_id(n) for n in numbers]
    assert _marks(plan, 3) == ([13.0, 20.0, 30.0, 15.0], [0], [False])
    assert _marks(plan, 4)[1] == [1]
    assert _marks(plan, 18) == ([], [], [])
    assert plan.facts["not annotated"] == 4
    assert plan.facts["without a box"] == 2
    config = DetectorConfig.from_dict(plan.params["training"])
    assert config.classes == ("cyst", "mass")
    assert plan.params["bundle"]["data"]["train"] == {
        "images": 20, "without a box": 2, "boxes": {"cyst": 9, "mass": 9},
    }  # fmt: skip
    everything = train_detector.plan(_spec(images="all"), store)
    assert everything.inputs.num_rows == 32
    assert everything.facts["without a box"] == 6


def test_what_was_rejected_is_no_image_without_a_box(store: LakeStore) -> None:
    """Images 20 to 23 are not annotated; the source names all of them but 21."""
    seed(store, {"rejects": [rejected(n, SOURCE) for n in (20, 22)] + [rejected(21, "other")]})
    # 22 was mended, and then left out of the source; 23 lost its boxes by being rejected; of 3 the
    # file could not be read once, and what was known of it stands.
    seed(store, {"annotations": [empty(22), box(23, "cyst")]})
    withdrawn = [{"image_id": image_id(n), "source": SOURCE} for n in (22, 23)]
    late = [rejected(23, SOURCE), rejected(3, SOURCE, reason="read_timeout")]
    seed(store, {"annotations": withdrawn, "rejects": late[:1]})
    seed(store, {"rejects": late[1:]})
    seed(store, {"rejects": [rejected(22, SOURCE, stage="score")]})
    plan = train_detector.plan(_spec(images="all"), store)
    left = {image_id(n) for n in range(32)} - set(plan.inputs["image_id"].to_pylist())
    assert left == {image_id(20), image_id(23)}
    assert (plan.facts["not annotated"], plan.facts["annotation rejected"]) == (0, 2)
    assert plan.facts["without a box"] == 4  # 18, 19, 21 and 22
    assert _marks(plan, 3)[2] == [False]
    usual = train_detector.plan(_spec(), store)
    assert usual.inputs.num_rows == 28
    assert (usual.facts["not annotated"], usual.facts["annotation rejected"]) == (2, 2)


def test_a_category_may_be_called_like_a_count(store: LakeStore) -> None:
    seed(store, {"annotations": [box(n, "images") for n in (0, 1, 24)]})
    plan = train_detector.plan(_spec(), store)
    train, val = (plan.params["bundle"]["data"][part] for part in ("train", "val"))
    assert train["images"] == 20
    assert train["boxes"] == {"cyst": 8, "images": 2, "mass": 8}
    assert (val["images"], val["boxes"]["images"], val["boxes"]["cyst"]) == (8, 1, 7)


def test_classes_merge_and_others_are_ignored(store: LakeStore) -> None:
    one = train_detector.plan(_spec(one_class=True), store)
    assert DetectorConfig.from_dict(one.params["training"]).classes == ("lesion",)
    assert _marks(one, 4) == ([14.0, 20.0, 30.0, 15.0], [0], [False])
    some = train_detector.plan(_spec(classes=["cyst"]), store)
    assert _marks(some, 4) == ([14.0, 20.0, 30.0, 15.0], [0], [True])
    merged = train_detector.plan(_spec(classes=["cyst"], one_class=True), store)
    assert _marks(merged, 3)[2] == [False]
    assert _marks(merged, 4)[2] == [True]


def test_crowds_and_the_ignored_source_are_regions(store: LakeStore) -> None:
    seed(
        store,
        {
            "annotations": [
                box(1, "cyst", source="review", x=50.0),
                box(5, "cyst", iscrowd=True),
                box(5, "cyst", x=70.0),
            ]
        },
    )
    plan = train_detector.plan(_spec(ignored="review"), store)
    boxes, categories, ignored = _marks(plan, 1)
    assert (boxes[0::4], categories, ignored) == ([11.0, 50.0], [0, 0], [False, True])
    # A source's newest run replaces what it said of an image before.
    assert _marks(plan, 5) == (
        [15.0, 20.0, 30.0, 15.0, 70.0, 20.0, 30.0, 15.0],
        [0, 0],
        [True, False],
    )
    assert _marks(train_detector.plan(_spec(), store), 1)[2] == [False]


def test_boxes_are_part_of_the_identity(store: LakeStore) -> None:
    first = train_detector.plan(_spec(), store)
    assert train_detector.plan(_spec(backends="eager"), store).fingerprint == first.fingerprint
    assert train_detector.plan(_spec(seed=1), store).fingerprint != first.fingerprint
    seed(store, {"annotations": [box(3, "cyst", w=31.0)]})
    assert train_detector.plan(_spec(), store).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"seed": 1}, True),
        ({"family": "yolox"}, True),
        ({"loss": {"radius": "original"}}, True),
        ({"augment": {"flip": False}}, True),
        ({"backbone": "fix"}, True),
        ({"limit": 50}, True),
        # What is not used has no effect.
        ({"augment": {"zoom": [0.9, 1.1]}}, False),
        ({"augment": {"zoom": [0.9, 1.1], "mosaic": 0.5}}, True),
        ({"architecture": "resnet18"}, False),
    ],
)
def test_settings_that_change_the_result_are_the_identity(
    changes: dict[str, Any], counts: bool
) -> None:
    found = [training_identity(training_config(_spec(**one), ("cyst",))) for one in ({}, changes)]
    assert (found[0] != found[1]) == counts


def test_the_backbone_is_freed_as_asked() -> None:
    assert [one.unfrozen for one in _spec(backbone="fix").resolved_stages] == [0]
    assert [one.unfrozen for one in _spec().resolved_stages] == ["all"]
    steps = _spec(backbone="stepwise", epochs=20).resolved_stages
    assert [one.unfrozen for one in steps] == [0, 1, 2, 3, 4, "all"]
    assert [one.epochs for one in steps] == [4, 4, 3, 3, 3, 3]
    given = [{"epochs": 2, "unfrozen": 0, "learning_rate": 1e-3}]
    assert _spec(backbone="stepwise", stages=given).resolved_stages[0].epochs == 2


def test_families_have_their_own_usual_settings(store: LakeStore) -> None:
    centernet = DetectorConfig.from_dict(train_detector.plan(_spec(), store).params["training"])
    assert (centernet.architecture, centernet.augmentation.mosaic) == ("resnet18", 0.0)
    assert (centernet.final_epochs, centernet.final_loss) == (0, {})
    assert centernet.stages[0].unfrozen == EVERY_BLOCK
    spec = _spec(family="yolox", epochs=300)
    yolox = DetectorConfig.from_dict(train_detector.plan(spec, store).params["training"])
    assert (yolox.architecture, yolox.augmentation.mosaic) == ("yolox-nano", 0.5)
    assert (yolox.final_epochs, yolox.final_loss, yolox.loss) == (15, {"l1": True}, {"l1": False})
    assert not yolox.is_final(284)
    assert yolox.is_final(285)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"family": "yolox", "architecture": "resnet18"}, "architecture of yolox"),
        ({"family": "yolox", "start": "pretrained"}, "no pretrained weights for yolox"),
        ({"family": "yolox", "loss": {"radius": "original"}}, "loss.radius is of centernet"),
        ({"loss": {"l1": "always"}}, "loss.l1 is of yolox"),
        ({"preprocess": {"size": 100}}, "multiple of 32"),
        ({"preprocess": {"size": 64, "decoder": "nvjpeg"}}, "must be cpu"),
        ({"stages": [{"epochs": 1, "learning_rate": 1}]}, "of `backbone: stepwise`"),
        ({"backbone": "stepwise", "epochs": 5}, "needs 6 epochs"),
        (
            {"backbone": "stepwise", "epochs": 6, "optimizer": {"warmup_epochs": 2}},
            "more than the 1",
        ),
        ({"ema_ramp_steps": 5}, "ema_ramp_steps is of ema_decay"),
        ({"classes": ["a", "a"]}, "twice"),
        ({"ignored": SOURCE}, "another source"),
        ({"augment": {"window": [1.2, 0.8]}}, "smaller to the larger"),
        ({"inner_fold": 1}, "needs fold"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        _spec(**changes)


def test_too_few_boxes_or_images_are_refused(store: LakeStore) -> None:
    with pytest.raises(SplitError, match="no annotated image") as caught:
        train_detector.plan(_spec(annotations="nobody"), store)
    assert "left out: 32 not annotated, 0 annotation rejected" in str(caught.value)
    with pytest.raises(SplitError, match="Every class needs boxes") as caught:
        train_detector.plan(_spec(classes=["cyst", "gland"]), store)
    assert "no gland in train" in str(caught.value)
    with pytest.raises(SplitError, match="val needs a box"):
        train_detector.plan(_spec(classes=["mass"]), store)


def test_a_split_that_leaks_is_refused(store: LakeStore) -> None:
    seed(store, {"splits": [place(3, "test")]})
    with pytest.raises(LeakError):
        train_detector.plan(_spec(), store)
    plan = train_detector.plan(_spec(allow_leaks=True), store)
    assert plan.params["bundle"]["data"]["leaks_allowed"]["patients"] == 1


def _model(store: LakeStore, name: str, family: str, architecture: str) -> None:
    row = {
        "model_id": name, "name": name, "version": 1, "family": family, "nightly": False,
        "architecture": architecture, "classes": ["a"], "data": json.dumps({}), "metrics": "{}",
    }  # fmt: skip
    seed(store, {"models": [row]})


def test_a_start_must_fit(store: LakeStore) -> None:
    _model(store, "eyes", "classifier", "resnet18")
    plan = train_detector.plan(_spec(start="bundle:eyes"), store)
    assert plan.params["start_id"] == "eyes"
    assert plan.params["start_uri"].endswith("model.safetensors")
    with pytest.raises(BundleError, match="another architecture"):
        train_detector.plan(_spec(start="bundle:eyes", architecture="resnet34"), store)
    with pytest.raises(BundleError, match="backbone of yolox"):
        train_detector.plan(_spec(start="bundle:eyes", family="yolox"), store)
    _model(store, "boxes", "yolox", "yolox-nano")
    with pytest.raises(BundleError, match="another family"):
        train_detector.plan(_spec(start="bundle:boxes"), store)
    with pytest.raises(BundleError):
        train_detector.plan(_spec(start="bundle:nobody"), store)


def test_a_bundle_made_from_just_this_is_up_to_date(store: LakeStore) -> None:
    made = train_detector.plan(_spec(), store).params["bundle"]["fingerprint"]
    row = {
        "model_id": "m", "name": "lesions", "version": 1, "family": "centernet",
        "architecture": "resnet18", "classes": ["cyst", "mass"], "fingerprint": made,
        "nightly": False,
    }  # fmt: skip
    seed(store, {"models": [row]})
    plan = train_detector.plan(_spec(), store)
    assert plan.inputs.num_rows == 0
    assert plan.counts.up_to_date == 28


def test_sites_limit_the_images(store: LakeStore) -> None:
    seed(store, {"images": [image(n, None, site="a") for n in range(32) if n % 4]})
    plan = train_detector.plan(_spec(sites=["a"]), store)
    assert plan.inputs.num_rows == 21
    with pytest.raises(SplitError, match="no image of a site") as caught:
        train_detector.plan(_spec(sites=["c"]), store)
    assert "train_detector.sites" in str(caught.value)
