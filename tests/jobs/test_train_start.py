"""What a training starts from: which bundles fit, what they learned, and the head svm's plan."""

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from cluster.lake.store import LakeStore
from jobs import evaluate, train
from jobs.bundles import model_row
from jobs.learned import learned_images
from jobs.train.features import PLATT_FOLDS
from schemas.bundle import BundleConfig, Preprocessing, digest
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
from workers.models.classifier.svm import FOLDS, SvmSettings
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
    seed(store, {"models": [model_row(config, version, nightly=False)]})


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
    rows = [model_row(twin, 1, nightly=False), model_row(newer, 2, nightly=False)]
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
    with pytest.raises(BundleError, match=r"no network of timm.*got centernet"):
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
        "models": [model_row(one, 1, nightly=False) for one in configs],
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
    with pytest.raises(
        LeakError, match=r"late@1, part test.*got 4 of 8 images \(3 themselves, 1 by their patients"
    ):
        evaluate.plan(judge, store)


def _elsewhere(store: LakeStore, **changes: Any) -> None:
    """Bundle `far` learned from images 100 to 103 of another data set."""
    there = {"dataset": "far", "split_name": "far-split"}
    numbers = range(100, 104)
    seed(
        store,
        {
            "images": [image(n, "ill", dataset="far", **changes) for n in numbers],
            "splits": [place(n, "train", **there) for n in numbers],
        },
    )
    data = {"dataset": "far", "split": "far-split"}
    _put(store, _config("far", "0f", data=data, files={"model.safetensors": digest(b"far")}))


def _judge(**changes: Any) -> EvaluateSpec:
    values = {"dataset": DATASET, "split": SPLIT, "model": "far", "parts": ("test",)}
    return EvaluateSpec.model_validate(values | changes)


def test_a_patient_of_another_data_set_counts_as_met(store: LakeStore) -> None:
    _elsewhere(store, patient_id="p16")  # who has the images 32 and 33 here, to test on
    with pytest.raises(LeakError, match=r"got 2 images \(0 themselves, 2 by their patients"):
        train.plan(_spec(start="bundle:far"), store)
    with pytest.raises(LeakError, match=r"far@1, part test.*got 2 of 8.*2 by their patients"):
        evaluate.plan(_judge(), store)


def test_strangers_of_another_data_set_do_not_count(store: LakeStore) -> None:
    _elsewhere(store)
    assert train.plan(_spec(start="bundle:far"), store).inputs.num_rows == 32
    assert evaluate.plan(_judge(), store).facts["without a score"] == 8


def test_an_image_of_another_data_set_counts_as_met(store: LakeStore) -> None:
    _elsewhere(store)
    seed(
        store,
        {"images": [image(100, "ill", patient_id="new")], "splits": [place(100, "test")]},
    )
    with pytest.raises(LeakError, match=r"got 1 images \(1 themselves"):
        train.plan(_spec(start="bundle:far"), store)


def test_near_duplicates_of_what_was_learned_count_as_met(store: LakeStore) -> None:
    places = [place(n, "test", split_name="later", group_id=f"x{n}") for n in (60, 61, 62)]
    # Image 60 looks like image 3 by the split that was learned by, 61 by the one asked about.
    places += [place(60, None, group_id="g1"), place(61, "test", group_id="x3")]
    places += [
        place(3, None, split_name="later", group_id="x61"),
        place(61, "test", split_name="later", group_id="x61"),
    ]
    images = [image(n, "well", patient_id=None, uri=f"archive/new{n}.png") for n in (60, 61, 62)]
    seed(store, {"images": images, "splits": places})
    with pytest.raises(
        LeakError, match=r"got 2 of 3 images \(0 themselves, 0 by their patients, 2 by near-dup"
    ):
        evaluate.plan(_judge(model="base", split="later"), store)
    with pytest.raises(LeakError, match="got 2 images"):
        train.plan(_spec(split="later", allow_leaks=False), _with_parts(store))


def _with_parts(store: LakeStore) -> LakeStore:
    parts = {n: "train" if n < 24 else "val" for n in range(32) if n != 3}
    seed(store, {"splits": [place(n, part, split_name="later") for n, part in parts.items()]})
    return store


def test_a_model_of_a_split_that_leaks_on_purpose_may_be_asked(store: LakeStore) -> None:
    data = {"dataset": DATASET, "split": "naive", "leaks_allowed": {"patients": 4}}
    naive = {n: "train" if n % 2 else "test" for n in range(8)}
    seed(store, {"splits": [place(n, part, split_name="naive") for n, part in naive.items()]})
    _put(store, _config("naive", "0a", data=data))
    assert evaluate.plan(_judge(model="naive", split="naive"), store).facts["without a score"] == 4
    honest = {"dataset": DATASET, "split": "naive"}
    _put(store, _config("honest", "0b", data=honest))
    with pytest.raises(LeakError, match=r"got 4 of 4 images \(0 themselves, 4 by their patients"):
        evaluate.plan(_judge(model="honest", split="naive"), store)


def test_a_checkpoint_that_is_a_bundles_weights_learned_what_the_bundle_did(
    store: LakeStore, tmp_path: Path
) -> None:
    _elsewhere(store, patient_id="p16")
    copied, other = tmp_path / "copy.safetensors", tmp_path / "other.safetensors"
    copied.write_bytes(b"far")
    other.write_bytes(b"near")
    assert train.plan(_spec(start=str(other)), store).inputs.num_rows == 32
    with pytest.raises(LeakError, match=r"a checkpoint, split chests-split\): got 2 images"):
        train.plan(_spec(start=str(copied)), store)
    plan = train.plan(_spec(start=str(copied), allow_leaks=True), store)
    told = plan.params["bundle"]["data"]
    assert told["leaks_allowed"]["test_images_the_start_met"] == 2
    # The same of a bundle that was made from the copy before anybody looked.
    start = {"checkpoint": digest(b"far")}
    _put(store, _config("late", "1c", data={"dataset": DATASET, "split": SPLIT, "start": start}))
    with pytest.raises(LeakError, match=r"late@1, part test.*got 2 of 8"):
        evaluate.plan(_judge(model="late"), store)


def test_a_bundle_may_have_the_weights_it_started_from(store: LakeStore) -> None:
    start = {"checkpoint": digest(b"same")}
    data = {"dataset": DATASET, "split": SPLIT, "start": start}
    _put(store, _config("same", "1d", data=data, files={"model.safetensors": digest(b"same")}))
    assert len(set(learned_images(store, data)["image_id"].to_pylist())) == 32


def test_a_checkpoint_is_read_once_while_it_stays_as_it_is(
    store: LakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "start.safetensors"
    weights.write_bytes(b"one")
    read: list[str] = []
    original = LakeStore.read_source

    def counted(self: LakeStore, uri: str) -> bytes:
        read.append(uri)
        return original(self, uri)

    monkeypatch.setattr(LakeStore, "read_source", counted)
    first = train.plan(_spec(start=str(weights)), store)
    assert train.plan(_spec(start=str(weights), epochs=3), store).fingerprint != first.fingerprint
    assert len(read) == 1
    weights.write_bytes(b"another")
    again = train.plan(_spec(start=str(weights)), store)
    assert (len(read), again.fingerprint == first.fingerprint) == (2, False)


def test_what_was_planned_keeps_no_lake_open(store: LakeStore, tmp_path: Path) -> None:
    weights = tmp_path / "start.safetensors"
    weights.write_bytes(b"one")
    mine = LakeStore(store.storage)
    train.plan(_spec(start=str(weights)), mine)
    left = weakref.ref(mine)
    del mine
    gc.collect()
    assert left() is None


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
    same = _svm(svm={"c": 3, "gamma": 0.1}, balance="weights", world_size=1)
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


def test_what_workers_decide_of_a_machine_enters_its_identity(store: LakeStore) -> None:
    assert PLATT_FOLDS == FOLDS
    seed(store, _embedded(*range(32)))
    assert train.plan(_svm(), store).identity["svm"]["platt_folds"] == FOLDS
