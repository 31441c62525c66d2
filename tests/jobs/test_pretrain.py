"""Planning a pre-training: what it may see, what it states, and what its bundle is good for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.lake.store import LakeStore
from jobs import pretrain, score, train
from jobs.bundles import model_row
from jobs.learned import learned_images
from jobs.train_detector.start import resolve_start
from schemas.bundle import CONFIG_FILE, OUTCOME_FILE, Preprocessing
from schemas.errors import BundleError, LeakError, SplitError
from schemas.jobfile import load
from schemas.protocols import Run
from schemas.specs.prepare import PrepareSpec
from schemas.specs.pretrain import PretrainSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.train import TrainSpec
from schemas.specs.train_detector import DetectorSpec
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
from workers.models.simsiam.config import SimSiamConfig

STUDY = Path(__file__).resolve().parents[2] / "studies" / "simsiam-busi.yaml"
PREPROCESSING = Preprocessing(recipe={"size": 64}, mean=(0.5,), std=(0.2,))


def _spec(**changes: Any) -> PretrainSpec:
    values = {"dataset": DATASET, "split": SPLIT, "model": "backbone", "name": "learn"}
    return PretrainSpec.model_validate(values | changes)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """40 labelled images: 24 to learn from, 8 to watch, 8 to test on."""
    return open_lake(tmp_path)


def _put(store: LakeStore, name: str, model_id: str, **changes: Any) -> None:
    config = bundle_config(name, model_id, preprocessing=PREPROCESSING, **changes)
    seed(store, {"models": [model_row(config, 1, nightly=False)]})


def _put_backbone(store: LakeStore) -> None:
    data = {"dataset": DATASET, "split": SPLIT}
    _put(store, "backbone", "b" * 16, family="simsiam", classes=(), num_classes=0, data=data)


def test_images_without_a_label_are_learned_from_and_those_to_test_on_are_not(
    store: LakeStore,
) -> None:
    conflict = [image(52, "well", uri="archive/a.png"), image(52, "ill", uri="archive/b.png")]
    seed(
        store,
        {
            "images": [image(50, None), *conflict],
            "splits": [place(50, "train"), place(52, "train"), place(7, None)],
        },
    )
    plan = pretrain.plan(_spec(), store)
    expected = [image_id(n) for n in (*(n for n in range(32) if n != 7), 50, 52)]
    assert plan.inputs["image_id"].to_pylist() == expected
    labels = dict(zip(expected, plan.inputs["label"].to_pylist(), strict=True))
    assert (labels[image_id(50)], labels[image_id(52)], labels[image_id(0)]) == (None, None, "well")
    data = plan.params["bundle"]["data"]
    assert data["train"] == {"images": 25, "of the probe": 23}
    assert data["val"] == {"images": 8, "of the probe": 8}
    only = pretrain.plan(_spec(images="labelled"), store)
    assert only.inputs["image_id"].to_pylist() == expected[:-2]


@pytest.mark.parametrize(
    ("rows", "counted"),
    [
        ({"splits": [place(0, "test", group_id="new")]}, "1 patients, 0 duplicate"),
        ({"splits": [place(33, "test", group_id="g0")]}, "0 patients, 1 duplicate"),
        (
            {"images": [image(36, None, patient_id="p1", uri="archive/0036.png")]},
            "1 patients, 0 duplicate",
        ),
    ],
)
def test_a_split_that_leaks_is_refused_unless_allowed(
    store: LakeStore, rows: dict[str, Any], counted: str
) -> None:
    seed(store, rows)
    with pytest.raises(LeakError, match=f"got {counted}.*allow_leaks: true"):
        pretrain.plan(_spec(), store)
    plan = pretrain.plan(_spec(allow_leaks=True), store)
    assert sum(plan.params["bundle"]["data"]["leaks_allowed"].values()) == 1


def test_the_spec_reaches_the_training(store: LakeStore) -> None:
    spec = _spec(
        batch_size=128,
        epochs=7,
        preprocess={"size": 96},
        views={"flip": False, "smallest_crop": 0.3},
        probe={"every": 2, "neighbours": 5},
    )
    config = SimSiamConfig.from_dict(pretrain.plan(spec, store).params["training"])
    assert config.epochs == 7
    assert config.stages[0].learning_rate == pytest.approx(0.05 * 128 / 256)
    assert (config.views.flip, config.views.smallest_crop, config.views.tone) == (False, 0.3, 0.4)
    assert config.probe is not None
    assert (config.probe.classes, config.probe.every, config.probe.neighbours) == (
        ("ill", "well"), 2, 5,
    )  # fmt: skip
    found = config.optimisation
    assert (found.optimiser, found.momentum, found.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (found.plain_momentum, found.constant_part, found.final_share) == (True, "predictor", 0)
    assert config.recipe["size"] == 96


def test_without_labels_there_is_no_probe(store: LakeStore) -> None:
    seed(store, {"images": [image(n, None) for n in range(24, 32)]})
    plan = pretrain.plan(_spec(), store)
    assert SimSiamConfig.from_dict(plan.params["training"]).probe is None
    assert plan.facts["probe"] == "none, without labels"
    assert "probe" not in pretrain.plan(_spec(probe=None), store).facts


def test_what_changes_the_bundle_enters_its_fingerprint(store: LakeStore) -> None:
    one = pretrain.plan(_spec(), store).fingerprint
    silent = pretrain.plan(_spec(probe=None), store).fingerprint
    same = _spec(name="again", execution={"workers": 7}, use_prepared=False)
    assert pretrain.plan(same, store).fingerprint == one
    others = [{"seed": 1}, {"views": {"flip": False}}, {"world_size": 1}, {"learning_rate": 0.1}]
    found = {pretrain.plan(_spec(**more), store).fingerprint for more in others}
    assert len(found | {one, silent}) == 6
    seed(store, {"images": [image(3, "other")]})
    assert pretrain.plan(_spec(), store).fingerprint != one
    assert pretrain.plan(_spec(probe=None), store).fingerprint == silent, "no label moves a weight"


def test_parts_without_images_are_named(store: LakeStore) -> None:
    with pytest.raises(SplitError, match=r"got no image in train and val"):
        pretrain.plan(_spec(split="another"), store)
    with pytest.raises(SplitError, match="no image of a site"):
        pretrain.plan(_spec(sites=["A"]), store)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"inner_fold": 1}, "inner_fold needs fold"),
        ({"fold": 1, "inner_fold": 1}, "another fold than the one held out"),
        ({"batch_size": 7, "world_size": 4}, "two images for each of the 4 workers"),
        ({"views": {"smallest_crop": 0}}, "greater than 0"),
        ({"probe": {"neighbours": 0}}, "greater than or equal to 1"),
    ],
)
def test_useless_settings_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        _spec(**fields)


class Pool(InlinePool):
    """Hands out a bundle that collapsed."""

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        made = bundle_config(
            "backbone",
            family="simsiam",
            classes=(),
            num_classes=0,
            fingerprint=config["bundle"]["fingerprint"],
            data=config["bundle"]["data"],
            metrics={
                "training": {"best_epoch": 2},
                "val": {
                    "spread": 0.9, "spread_at_end": 0.2, "collapsed": True,
                    "probe_accuracy": 0.75, "probe_random_accuracy": 0.5,
                    "gain_accuracy": 0.25, "gain_accuracy 95%": [-0.1, 0.5],
                },
            },
        )  # fmt: skip
        outcome = json.dumps({"rejects": [], "history": []}).encode()
        return {CONFIG_FILE: made.to_json(), OUTCOME_FILE: outcome}


def test_the_report_tells_a_collapse_and_the_second_run_has_nothing_to_do(
    store: LakeStore,
) -> None:
    report = pretrain.run(_spec(), Pool(), store)
    assert (report.status, report.counts.done) == ("published", 32)
    told = {name: report.facts[name] for name in report.facts if name != "model"}
    assert told == {
        "kept epoch": 2,
        "spread": 0.2,
        "WARNING, collapsed: spread below 0.5 at the end": 1,
        "probe accuracy": 0.75,
        "probe accuracy of random weights": 0.5,
        "gain": 0.25,
        "gain 95 % low": -0.1,
        "gain 95 % high": 0.5,
    }
    assert pretrain.run(_spec(), Pool(), store).status == "up_to_date"


def test_trainings_start_from_the_backbone_and_its_images_count_as_learned(
    store: LakeStore,
) -> None:
    _put_backbone(store)
    asked = {"dataset": DATASET, "split": SPLIT, "model": "lungs", "start": "bundle:backbone"}
    plan = train.plan(TrainSpec.model_validate(asked), store)
    assert plan.params["start_uri"].endswith("models/backbone/1/model.safetensors")
    assert plan.params["training"]["new_head"] is True
    data = plan.params["bundle"]["data"]
    learned = set(learned_images(store, data)["image_id"].to_pylist())
    assert learned == {image_id(n) for n in range(32)}
    with pytest.raises(BundleError, match=r"another architecture .*got vgg16"):
        train.plan(TrainSpec.model_validate(asked | {"architecture": "vgg16"}), store)
    again = pretrain.plan(_spec(model="more", start="bundle:backbone"), store)
    assert again.params["training"]["start"] == "checkpoint"


def test_a_backbone_that_met_images_to_test_on_is_no_start(store: LakeStore) -> None:
    _put_backbone(store)
    parts = ["test" if n < 8 else "train" if n < 36 else "val" for n in range(40)]
    places = [place(n, part, split_name="z") for n, part in enumerate(parts)]
    seed(store, {"splits": places})
    asked = {"dataset": DATASET, "split": "z", "model": "lungs", "start": "bundle:backbone"}
    with pytest.raises(LeakError, match=r"learned from images of the test part.*got 8 images"):
        train.plan(TrainSpec.model_validate(asked), store)
    with pytest.raises(LeakError, match="got 8 images"):
        pretrain.plan(_spec(split="z", start="bundle:backbone"), store)


def test_a_detector_starts_from_the_backbone(store: LakeStore) -> None:
    _put_backbone(store)
    detector = {"dataset": DATASET, "split": SPLIT, "model": "finder", "annotations": "masks"}
    spec = DetectorSpec.model_validate(detector | {"start": "bundle:backbone"})
    found = resolve_start(spec, store, {})
    assert found.bundle["family"] == "simsiam"


def test_other_bundles_are_no_start_of_a_pretraining(store: LakeStore) -> None:
    _put(store, "finder", "f" * 16, family="centernet")
    with pytest.raises(BundleError, match=r"no network of timm .*pretrain.start.*got centernet"):
        pretrain.plan(_spec(start="bundle:finder"), store)
    _put(store, "lungs", "e" * 16, architecture="vgg16")
    with pytest.raises(BundleError, match=r"another architecture .*: got resnet18.*: vgg16`"):
        pretrain.plan(_spec(start="bundle:lungs"), store)


def test_a_backbone_scores_nothing_and_says_what_it_is_for(store: LakeStore) -> None:
    _put_backbone(store)
    with pytest.raises(BundleError, match=r"no classes.*score.model.*kind: embed.*bundle:backbone"):
        score.plan(ScoreSpec(dataset=DATASET, model="backbone"), store)


@pytest.mark.parametrize("profile", [None, "smoke"])
def test_the_study_prepares_the_pixels_it_learns_from(profile: str | None) -> None:
    file = load(STUDY, profile=profile, env={"DATA": "/data"})
    jobs = {job.kind: job for job in file.jobs}
    made, learn, fit = jobs["prepare"], jobs["pretrain"], jobs["train"]
    assert isinstance(made, PrepareSpec)
    assert isinstance(learn, PretrainSpec)
    assert isinstance(fit, TrainSpec)
    assert made.preprocess == learn.preprocess == fit.preprocess
    assert (fit.start, fit.split) == (f"bundle:{learn.model}", learn.split)
    assert not learn.allow_leaks
