"""Planning a training: which images, which leaks, when there is nothing to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.lake.store import LakeStore
from jobs import train
from schemas.errors import LeakError, SplitError, UsageError
from schemas.specs.train import TrainSpec
from tests.jobs.seeding import (
    DATASET,
    SPLIT,
    InlinePool,
    image,
    image_id,
    open_lake,
    place,
    seed,
)
from workers.training.config import Optimisation, TrainConfig


def _spec(**changes: Any) -> TrainSpec:
    values = {"dataset": DATASET, "split": SPLIT, "model": "lungs", "name": "fit"}
    return TrainSpec.model_validate(values | changes)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return open_lake(tmp_path)


def test_plan_takes_labelled_images_of_train_and_val(store: LakeStore) -> None:
    seed(
        store,
        {
            "images": [
                image(50, None),
                image(51, "other"),
                image(52, "well", uri="archive/a.png"),
                image(52, "ill", uri="archive/b.png"),
                image(53, "well", dataset="elsewhere"),
            ],
            "splits": [place(n, "train") for n in (50, 51, 52, 53)] + [place(7, None)],
        },
    )
    plan = train.plan(_spec(classes=["ill", "well"]), store)
    expected = [image_id(n) for n in range(32) if n != 7]
    assert plan.inputs["image_id"].to_pylist() == expected
    assert set(plan.inputs["part"].to_pylist()) == {"train", "val"}
    assert plan.inputs["group"].to_pylist()[:3] == ["p0", "p0", "p1"]
    assert plan.bounds == (0, 31)
    assert plan.facts["contradicting labels"] == 1
    assert plan.facts["without a label"] == 2
    data = plan.params["bundle"]["data"]
    assert data["train"] == {"ill": 11, "well": 12}
    assert data["val"] == {"ill": 4, "well": 4}


def test_classes_are_the_labels_of_the_training_part(store: LakeStore) -> None:
    plan = train.plan(_spec(), store)
    config = TrainConfig.from_dict(plan.params["training"])
    assert config.classes == ("ill", "well")
    assert plan.params["bundle"]["positive"] == "well"
    turned = train.plan(_spec(classes=["well", "ill"], positive="ill"), store)
    assert TrainConfig.from_dict(turned.params["training"]).classes == ("well", "ill")
    assert turned.params["bundle"]["positive"] == "ill"
    assert turned.fingerprint != plan.fingerprint


def test_spec_reaches_the_training(store: LakeStore) -> None:
    spec = _spec(
        epochs=8,
        patience=3,
        balance="weights",
        unfrozen=2,
        precision="bf16",
        preprocess={"size": 96, "resize": "stretch"},
        optimizer={"name": "sgd", "schedule": "step", "clip_norm": 2, "warmup_epochs": 0},
        augment={"rotate_degrees": 5, "contrast": 0.3},
    )
    config = TrainConfig.from_dict(train.plan(spec, store).params["training"])
    assert (config.epochs, config.stop_after, config.balance) == (8, 3, "weights")
    assert [one.unfrozen for one in config.stages] == [2]
    assert (config.recipe["size"], config.recipe["resize"]) == (96, "stretch")
    assert config.optimisation.schedule == "step"
    assert (config.optimisation.optimiser, config.optimisation.clip_norm) == ("sgd", 2)
    assert (config.augmentation.rotate_deg, config.augmentation.contrast) == (5, 0.3)
    assert config.precision == "bf16"


def test_how_fast_and_where_enters_no_fingerprint(store: LakeStore) -> None:
    one = train.plan(_spec(), store)
    other = train.plan(_spec(name="again", execution={"workers": 7}, nightly=True), store)
    assert one.fingerprint == other.fingerprint
    assert train.plan(_spec(seed=1), store).fingerprint != one.fingerprint
    assert train.plan(_spec(world_size=1), store).fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("rows", "counted"),
    [
        ({"splits": [place(0, "test", group_id="new")]}, "1 patients, 0 duplicate"),
        ({"splits": [place(33, "test", group_id="g0")]}, "0 patients, 1 duplicate"),
    ],
)
def test_leaking_split_is_refused_unless_allowed(
    store: LakeStore, rows: dict[str, Any], counted: str
) -> None:
    seed(store, rows)
    with pytest.raises(LeakError, match=f"got {counted}.*allow_leaks: true"):
        train.plan(_spec(), store)
    plan = train.plan(_spec(allow_leaks=True), store)
    told = plan.params["bundle"]["data"]["leaks_allowed"]
    assert sum(told.values()) == 1
    assert any(name.startswith("leaking ") for name in plan.facts)


def test_patients_of_the_test_part_count_as_leaks_too(store: LakeStore) -> None:
    seed(store, {"images": [image(36, "well", patient_id="p1", uri="archive/0036.png")]})
    with pytest.raises(LeakError, match="1 patients"):
        train.plan(_spec(), store)


def test_parts_without_a_class_are_named(store: LakeStore) -> None:
    with pytest.raises(SplitError, match=r"got no dead in train, no dead in val"):
        train.plan(_spec(classes=["ill", "well", "dead"]), store)
    with pytest.raises(SplitError, match=r"at least two classes.*got no labelled image"):
        train.plan(_spec(split="another"), store)


def test_the_positive_class_must_be_one_of_two(store: LakeStore) -> None:
    with pytest.raises(UsageError, match=r"train\.positive\): got dead of the classes ill, well"):
        train.plan(_spec(positive="dead"), store)
    seed(store, {"images": [image(n, "worse") for n in (2, 26)]})
    with pytest.raises(UsageError, match=r"got worse of the classes ill, well, worse"):
        train.plan(_spec(positive="worse"), store)
    assert train.plan(_spec(), store).params["bundle"]["positive"] is None


def test_settings_without_effect_enter_no_fingerprint(store: LakeStore) -> None:
    stated = train.plan(_spec(), store).identity["training"]
    assert stated["optimisation"] == {
        "optimiser": "adamw",
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warm_up_epochs": 1.0,
        "final_share": Optimisation().final_share,  # no setting, yet it makes the weights
    }
    assert stated["loss"] == {"name": "cross_entropy"}
    assert "mixup" not in stated["augmentation"]
    assert not {"ema_decay", "stop_after", "label_smoothing", "balance", "new_head"} & set(stated)
    focal = train.plan(_spec(loss={"name": "focal"}), store).identity["training"]
    assert focal["loss"] == {"name": "focal", "gamma": 2.0}
    flat = train.plan(_spec(optimizer={"schedule": "constant"}), store).identity["training"]
    assert "final_share" not in flat["optimisation"]


def test_each_setting_makes_a_fingerprint_of_its_own(store: LakeStore) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"optimizer": {"name": "sgd"}},
        {"optimizer": {"name": "sgd", "momentum": 0.5}},
        {"optimizer": {"clip_norm": 1}},
        {"optimizer": {"schedule": "step"}},
        {"optimizer": {"warmup_epochs": 0}},
        {"optimizer": {"weight_decay": 0}},
        {"augment": {"rotate_degrees": 0}},
        {"augment": {"mixup": 0.2}},
        {"augment": {"flip": True}},
        {"augment": {"randaugment": {"operations": 2}}},
        {"loss": {"name": "focal"}},
        {"loss": {"name": "focal", "gamma": 1}},
        {"loss": {"name": "binary"}},
        {"loss": {"name": "cost", "costs": [[0, 1], [1, 0]]}, "classes": ["ill", "well"]},
        {"loss": {"name": "cost", "costs": [[0, 2], [1, 0]]}, "classes": ["ill", "well"]},
        {"head": "corn", "classes": ["ill", "well"]},
        {"ema_decay": 0.9},
        {"patience": 2},
        {"label_smoothing": 0.1},
        {"balance": "weights"},
        {"balance": "sampler"},
        {"calibrate": False},
        {"unfrozen": 0},
        {"stages": [{"epochs": 20, "learning_rate": 0.1}]},
        {"seed": 1},
        {"precision": "bf16"},
        {"world_size": 1},
    ]
    made = {train.plan(_spec(**change), store).fingerprint: change for change in changes}
    assert list(made.values()) == changes


def test_start_weights_enter_the_fingerprint_by_content(store: LakeStore, tmp_path: Path) -> None:
    weights = tmp_path / "start.safetensors"
    weights.write_bytes(b"one")
    one = train.plan(_spec(start=str(weights)), store)
    assert one.params["start_uri"] == str(weights)
    assert one.params["training"]["start"] == "checkpoint"
    weights.write_bytes(b"two")
    assert train.plan(_spec(start=str(weights)), store).fingerprint != one.fingerprint
    assert train.plan(_spec(), store).params["start_uri"] is None
    pretrained = train.plan(_spec(start="pretrained"), store)
    assert pretrained.params["training"]["start"] == "timm"


def test_run_puts_a_bundle_and_its_row_once(store: LakeStore) -> None:
    pool = InlinePool()
    pool.rejects = [
        {"uri": "archive/0003.png", "image_id": image_id(3), "stage": "train", "reason": "corrupt"}
    ]
    report = train.run(_spec(nightly=True), pool, store)
    assert report.status == "published"
    assert (report.counts.done, report.counts.rejected, report.counts.input) == (31, 1, 32)
    bundle = store.bundle("lungs")
    assert (bundle["version"], bundle["family"], bundle["nightly"]) == (1, "classifier", True)
    assert json.loads(bundle["operating_point"])["threshold"] == 0.25
    assert json.loads(bundle["data"])["split"] == SPLIT
    rejects = store.query("SELECT image_id, stage FROM rejects").to_pylist()
    assert rejects == [{"image_id": image_id(3), "stage": "train"}]

    again = train.run(_spec(), pool, store)
    assert again.status == "up_to_date"
    assert (again.counts.up_to_date, again.counts.input) == (32, 32)
    assert len(pool.trained) == 1

    changed = train.run(_spec(epochs=3), pool, store)
    assert changed.status == "published"
    assert store.bundle("lungs")["version"] == 2
    assert len(pool.trained) == 2


def test_mark_of_a_run_that_died_right_after_its_commit_is_taken_away(
    store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.lake.committing.close", lambda _run: None)
    pool = InlinePool()
    assert train.run(_spec(), pool, store).status == "published"
    assert list(store.storage.list("_open"))
    assert train.run(_spec(), pool, store).status == "up_to_date"
    assert not list(store.storage.list("_open"))
    assert len(pool.trained) == 1


def test_run_that_died_after_training_goes_on_with_its_bundle(store: LakeStore) -> None:
    class Dying(InlinePool):
        pass

    pool = Dying()
    committed = store.commit

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    store.commit = die  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        train.run(_spec(), pool, store)
    store.commit = committed  # type: ignore[method-assign]
    report = train.run(_spec(name="renamed"), pool, store)
    assert (report.status, report.name) == ("published", "renamed")
    assert len(pool.trained) == 1
    assert store.query("SELECT count(*) AS n FROM models")["n"].to_pylist() == [1]
