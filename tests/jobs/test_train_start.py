"""What a training starts from: which bundles fit, what they learned, and the head svm's plan."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.lake.store import LakeStore
from jobs import evaluate, train
from jobs.learned import learned_images
from schemas.bundle import BundleConfig, Preprocessing
from schemas.errors import BundleError, LeakError
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.train import TrainSpec
from tests.jobs.seeding import (
    DATASET,
    SPLIT,
    InlinePool,
    bundle_config,
    image,
    image_id,
    open_lake,
    place,
    seed,
)
from workers.models.classifier.svm import SvmSettings
from workers.pixels.steps import Recipe
from workers.training.config import TrainConfig

START = "5544332211ffeedd"
RECIPE = Recipe(size=64)


def _spec(**changes: Any) -> TrainSpec:
    values = {"dataset": DATASET, "split": SPLIT, "model": "lungs", "start": "bundle:base"}
    return TrainSpec.model_validate(values | changes)


def _svm(**changes: Any) -> TrainSpec:
    return _spec(head="svm", **changes)


def _config(name: str, model_id: str, **changes: Any) -> BundleConfig:
    preprocessing = Preprocessing(recipe=RECIPE.to_dict(), mean=(0.5,), std=(0.2,))
    return bundle_config(name, model_id, preprocessing=preprocessing, **changes)


def _put(store: LakeStore, config: BundleConfig, version: int = 1) -> None:
    seed(store, {"models": [train.model_row(config, version, nightly=False)]})


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """The lake of `open_lake`, and a bundle trained by its split."""
    lake = open_lake(tmp_path)
    _put(lake, _config("base", START, data={"dataset": DATASET, "split": SPLIT}))
    return lake


def _embedded(*numbers: int, model_id: str = START) -> dict[str, list[dict[str, Any]]]:
    return {
        "embeddings": [
            {"image_id": image_id(n), "model_id": model_id, "vector": [1.0, 2.0]} for n in numbers
        ]
    }


def test_a_bundle_is_a_start_by_its_weights_and_its_identity(store: LakeStore) -> None:
    plan = train.plan(_spec(), store)
    assert plan.params["start_uri"] == f"{store.root}/models/base/1/model.safetensors"
    assert TrainConfig.from_dict(plan.params["training"]).start == "checkpoint"
    assert plan.params["bundle"]["data"]["start"] == {"bundle": "base@1", "model_id": START}
    assert train.plan(_spec(start="bundle:base@1"), store).fingerprint == plan.fingerprint
    assert train.plan(_spec(start="none"), store).fingerprint != plan.fingerprint
    twin, newer = _config("twin", START), _config("base", "77")
    rows = [train.model_row(twin, 1, nightly=False), train.model_row(newer, 2, nightly=False)]
    seed(store, {"models": rows})
    assert train.plan(_spec(start="bundle:twin"), store).fingerprint == plan.fingerprint
    newest = train.plan(_spec(), store)
    assert newest.params["start_uri"].endswith("models/base/2/model.safetensors")
    assert newest.fingerprint != plan.fingerprint


def test_the_classifier_is_taken_along_only_for_the_same_classes(store: LakeStore) -> None:
    same = train.plan(_spec(), store).params["training"]
    assert same["new_head"] is False
    turned = train.plan(_spec(classes=["well", "ill"]), store).params["training"]
    assert turned["new_head"] is True
    assert train.plan(_spec(start="none"), store).params["training"]["new_head"] is False


def test_the_card_says_what_weights_training_started_from(store: LakeStore, tmp_path: Path) -> None:
    weights = tmp_path / "start.safetensors"
    weights.write_bytes(b"one")
    told = [
        train.plan(_spec(start=start), store).params["bundle"]["data"]["start"]
        for start in ("none", "pretrained", str(weights))
    ]
    assert told[0] == {"weights": "random"}
    assert told[1] == {"weights": "timm's pretrained ones"}
    assert list(told[2]) == ["checkpoint"]
    assert str(tmp_path) not in json.dumps(told)


def test_bundles_that_do_not_fit_are_refused(store: LakeStore) -> None:
    with pytest.raises(BundleError, match=r"No such bundle.*got nothing.*base"):
        train.plan(_spec(start="bundle:nothing"), store)
    with pytest.raises(
        BundleError,
        match=r"another architecture \(base@1, train.architecture\): got vgg16.*: resnet18`",
    ):
        train.plan(_spec(architecture="vgg16"), store)
    machine = _config(
        "machine", "99", data={"head": "svm", "start": {"bundle": "base@1", "model_id": START}}
    )
    _put(store, machine)
    with pytest.raises(BundleError, match=r"on another bundle's network.*itself, `bundle:base@1`"):
        train.plan(_spec(start="bundle:machine"), store)
    _put(store, _config("boxes", "98", family="centernet"))
    with pytest.raises(BundleError, match=r"no classifier.*got centernet"):
        train.plan(_spec(start="bundle:boxes"), store)


def test_a_start_that_met_test_images_is_refused_unless_allowed(store: LakeStore) -> None:
    # Images 20 to 23 were trained on; a new split tests on them.
    parts = {n: "train" if n < 20 else "test" if n < 24 else "val" for n in range(40)}
    places = [place(n, part, split_name="other") for n, part in parts.items()]
    seed(store, {"splits": places})
    with pytest.raises(
        LeakError,
        match=r"learned from images of the test part.*base@1, split other.*got 4 images.*allow",
    ):
        train.plan(_spec(split="other"), store)
    plan = train.plan(_spec(split="other", allow_leaks=True), store)
    told = plan.params["bundle"]["data"]["leaks_allowed"]
    assert {name: count for name, count in told.items() if count} == {
        "test_images_the_start_met": 4
    }
    assert plan.facts["leaking test images the start met"] == 4


def test_other_images_of_a_learned_patient_count_as_met(store: LakeStore) -> None:
    parts = {n: "train" if n < 24 else "val" for n in range(8, 32)}
    places = [place(n, part, split_name="other") for n, part in parts.items()]
    places.append(place(70, "test", split_name="other", group_id="g70"))
    again = image(70, "well", patient_id="p3", uri="archive/new.png")
    seed(store, {"images": [again], "splits": places})
    with pytest.raises(LeakError, match=r"or of their patients.*got 1 images"):
        train.plan(_spec(split="other"), store)


def test_a_fold_held_out_is_as_good_as_a_test_part(store: LakeStore) -> None:
    folded = [place(n, "train", fold=n // 8) for n in range(32)]
    seed(store, {"splits": [*folded, *(place(n, "test") for n in range(32, 40))]})
    data = {"dataset": DATASET, "split": SPLIT, "fold": 0, "inner_fold": 1}
    _put(store, _config("base", START, data=data), version=2)
    assert train.plan(_spec(fold=0), store).inputs.num_rows == 24
    with pytest.raises(
        LeakError, match=r"the test part and fold 1, .*got 8 images.*this split with `fold: 1`"
    ):
        train.plan(_spec(fold=1), store)


def test_what_a_start_learned_is_learned_too(store: LakeStore) -> None:
    early = {"dataset": DATASET, "split": "early"}
    late = {"dataset": DATASET, "split": SPLIT, "start": {"bundle": "early@1", "model_id": "01"}}
    configs = [_config("early", "01", data=early), _config("late", "02", data=late)]
    parts = {33: "val", 34: "train", 35: "train"}
    rows = {
        "splits": [place(n, part, split_name="early") for n, part in parts.items()],
        "models": [train.model_row(one, 1, nightly=False) for one in configs],
    }
    seed(store, rows)
    learned = learned_images(store, late).to_pylist()
    roles = {int(row["image_id"], 16): row["role"] for row in learned}
    assert sorted(roles) == [*range(32), 33, 34, 35]
    assert (roles[3], roles[30], roles[33], roles[34]) == ("train", "val", "val", "train")
    # Image 32 is of the patient of 33.
    with pytest.raises(LeakError, match=r"got 4 images"):
        train.plan(_spec(start="bundle:late"), store)
    judge = EvaluateSpec(dataset=DATASET, split=SPLIT, model="late", parts=("test",))
    with pytest.raises(LeakError, match=r"late@1, part test.*got 3 of 8"):
        evaluate.plan(judge, store)


def test_a_model_of_some_sites_did_not_learn_from_the_others(store: LakeStore) -> None:
    seed(store, {"images": [image(n, "well", site="north") for n in range(4)]})
    data = {"dataset": DATASET, "split": SPLIT, "sites": ["north"]}
    ids = learned_images(store, data)["image_id"].to_pylist()
    assert [int(one, 16) for one in sorted(ids)] == [0, 1, 2, 3]
    assert learned_images(store, {"name": "made elsewhere"}).num_rows == 0


def test_a_machine_is_planned_on_the_rows_that_have_features(store: LakeStore) -> None:
    seed(store, _embedded(*range(32)))
    plan = train.plan(_svm(svm={"c": 3, "gamma": 0.1}, balance="weights"), store)
    assert plan.inputs.num_rows == 32
    config = plan.params["svm"]
    assert config["classes"] == ["ill", "well"]
    assert SvmSettings(**config["settings"]) == SvmSettings("rbf", 3.0, 0.1, balanced=True)
    assert "training" not in plan.params
    assert plan.params["start_id"] == START
    data = plan.params["bundle"]["data"]
    assert (data["head"], data["start"]["bundle"]) == ("svm", "base@1")
    other = train.plan(_svm(svm={"kernel": "linear"}), store)
    assert other.fingerprint != plan.fingerprint
    # What only a network's training has changes nothing.
    same = _svm(svm={"c": 3, "gamma": 0.1}, balance="weights", epochs=3, seed=4, world_size=1)
    assert train.plan(same, store).fingerprint == plan.fingerprint


def test_missing_features_name_the_job_to_run(store: LakeStore) -> None:
    other = _embedded(*range(20, 32), model_id="another")["embeddings"]
    seed(store, {"embeddings": _embedded(*range(20))["embeddings"] + other})
    with pytest.raises(
        BundleError,
        match=r"no features of the start bundle yet \(base@1, data set chests.*got 12 of 32 "
        r"images.*`kind: embed` with `dataset: chests`, `model: base@1` and `split: chests-split`",
    ):
        train.plan(_svm(), store)


def test_images_that_embed_rejected_are_left_out_and_counted(store: LakeStore) -> None:
    reject = {"stage": "embed", "subject": START, "reason": "corrupt"}
    transient = {**reject, "reason": "unreadable", "image_id": image_id(30)}
    rejects = [{**reject, "image_id": image_id(31)}, transient]
    seed(store, {**_embedded(*range(30)), "rejects": rejects})
    with pytest.raises(BundleError, match="got 1 of 32 images"):
        train.plan(_svm(), store)
    seed(store, {"rejects": [{**reject, "image_id": image_id(30)}]})
    plan = train.plan(_svm(), store)
    assert plan.inputs.num_rows == 30
    assert plan.facts["without features"] == 2
    assert plan.params["bundle"]["data"]["val"] == {"ill": 2, "well": 4}


def test_pixels_of_a_machine_are_those_of_its_features(store: LakeStore) -> None:
    seed(store, _embedded(*range(32)))
    train.plan(_svm(preprocess={"size": 64}), store)
    with pytest.raises(BundleError, match=r"by another recipe.*leave `preprocess` out"):
        train.plan(_svm(preprocess={"size": 32}), store)


def test_patients_enter_the_fingerprint_of_a_machine(store: LakeStore) -> None:
    seed(store, _embedded(*range(32)))
    before = train.plan(_svm(), store)
    seed(store, {"images": [image(0, "well", patient_id="p90"), image(1, "well")]})
    assert train.plan(_svm(), store).fingerprint != before.fingerprint


def test_a_machine_is_put_into_the_lake_once(store: LakeStore) -> None:
    seed(store, _embedded(*range(32)))
    pool = InlinePool()
    assert train.run(_svm(), pool, store).status == "published"
    assert train.run(_svm(), pool, store).status == "up_to_date"
    assert len(pool.trained) == 1
