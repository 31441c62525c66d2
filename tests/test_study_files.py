"""The studies that ship: their profiles, their tables, and that they fit together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.jobfile import JobFile, load
from schemas.specs.ingest import IngestSpec
from schemas.specs.phantoms import PhantomsSpec
from schemas.specs.prepare import PrepareSpec
from schemas.specs.split import SplitSpec
from schemas.specs.study import StudySpec
from schemas.specs.train import TrainSpec
from schemas.studies import trials_of

FOLDER = Path(__file__).resolve().parent.parent / "studies"
COMPARISONS = ("ct-nodule", "hand-severity", "pneumoconiosis-transfer")
"""Studies after documents, with a profile for any machine and one for GPUs."""


def profiles(name: str) -> list[str | None]:
    return [None, *yaml.safe_load((FOLDER / f"{name}.yaml").read_text()).get("profiles", {})]


def opened(name: str, profile: str | None = None, **env: str) -> JobFile:
    return load(FOLDER / f"{name}.yaml", profile=profile, env=env)


def studies(file: JobFile) -> dict[str, StudySpec]:
    return {job.name: job for job in file.jobs if isinstance(job, StudySpec)}


def trainings(file: JobFile) -> list[TrainSpec]:
    """Of all trials, the network's training; and the trainings of their own."""
    found = [job for job in file.jobs if isinstance(job, TrainSpec)]
    for study in studies(file).values():
        found += [
            trial.jobs[0] for trial in trials_of(study) if isinstance(trial.jobs[0], TrainSpec)
        ]
    return found


EVERY = [(name, one) for name in (*COMPARISONS, "pneumonia-best") for one in profiles(name)]


@pytest.mark.parametrize(("name", "profile"), EVERY)
def test_trainings_read_the_pixels_that_were_prepared(name: str, profile: str | None) -> None:
    file = opened(name, profile)
    prepared = [(job.dataset, job.preprocess) for job in file.jobs if isinstance(job, PrepareSpec)]
    found = trainings(file)
    assert found
    assert all((one.dataset, one.preprocess) in prepared for one in found)


@pytest.mark.parametrize(("name", "profile"), EVERY)
def test_trainings_take_splits_and_folds_that_are_made(name: str, profile: str | None) -> None:
    file = opened(name, profile)
    made = {job.split_name: job for job in file.jobs if isinstance(job, SplitSpec)}
    for one in trainings(file):
        split = made[one.split]
        assert one.dataset == split.dataset
        assert one.fold is None or one.fold < split.folds
        assert one.allow_leaks == (split.mode == "random"), "naive splits alone may leak"


@pytest.mark.parametrize("name", COMPARISONS)
def test_smoke_needs_nothing_but_what_it_makes_and_is_small(name: str) -> None:
    file = opened(name, "smoke")
    made = [job.target for job in file.jobs if isinstance(job, PhantomsSpec)]
    for job in file.jobs:
        if isinstance(job, IngestSpec):
            assert any(job.source == f"{target}/images" for target in made)
            assert job.metadata is not None
            assert any(job.metadata.file == f"{target}/metadata.csv" for target in made)
    for one in trainings(file):
        assert one.preprocess.size == 64
        assert one.epochs <= 8
        assert one.start in {"none", "bundle:pneumonia-start"}
        assert one.fold in (None, 0)
    assert sum(len(trials_of(study)) for study in studies(file).values()) <= 18


@pytest.mark.parametrize(("name", "profile"), EVERY)
def test_phantoms_are_read_where_they_are_written(name: str, profile: str | None) -> None:
    file = opened(name, profile, PHANTOMS="/made", DATA="/data")
    for job in file.jobs:
        if isinstance(job, PhantomsSpec):
            assert job.target.startswith("/made/")
        if isinstance(job, IngestSpec):
            places = [job.source, *([job.metadata.file] if job.metadata else [])]
            assert all(one.startswith(("/made/", "/data/")) for one in places)


@pytest.mark.parametrize("name", COMPARISONS)
def test_full_is_for_gpus_with_pretrained_weights(name: str) -> None:
    file = opened(name, "full")
    for study in studies(file).values():
        assert 0 < study.gpus_per_trial <= 1
    for one in trainings(file):
        assert (one.preprocess.size, one.precision) == (224, "bf16")
        assert one.start in {"pretrained", "bundle:pneumonia-start"}


def labels(study: StudySpec, axis: str) -> list[str]:
    return study.axes[axis]


def test_ct_nodule_has_the_rows_and_columns_of_the_document() -> None:
    found = studies(opened("ct-nodule"))
    first, leakage = found["augmentation"].tables
    assert first.rows == ("augmentation",)
    assert labels(found["augmentation"], "augmentation") == [
        "standard", "Mixup", "Rand Aug", "Mix & Rand Aug",
    ]  # fmt: skip
    assert list(first.metrics) == ["precision", "recall", "F1", "Accuracy", "AUC"]
    assert (leakage.columns, leakage.difference) == (("split", "metric"), "split")
    assert labels(found["backbones"], "split") == ["by group", "by image"]
    named = {"vgg16", "densenet121", "densenet169", "resnet18", "resnet50", "efficientnet_b2"}
    assert named <= set(labels(found["backbones"], "architecture"))
    (ingest,) = [job for job in opened("ct-nodule").jobs if isinstance(job, IngestSpec)]
    for one in trainings(opened("ct-nodule")):
        assert (one.classes, one.positive) == (("normal", "nodule"), "nodule")
    assert ingest.labels == {"benign": "nodule", "malignant": "nodule"}
    assert first.metrics["recall"] == "recall/nodule"


def test_augmentations_differ_in_what_their_rows_say() -> None:
    (study,) = (studies(opened("ct-nodule"))["augmentation"],)
    by_row: dict[str, set[Any]] = {}
    for trial in trials_of(study):
        network = trial.jobs[0]
        assert isinstance(network, TrainSpec)
        settings = (network.augment.mixup > 0, network.augment.randaugment is not None)
        by_row.setdefault(trial.labels["augmentation"], set()).add(settings)
    assert by_row == {
        "standard": {(False, False)},
        "Mixup": {(True, False)},
        "Rand Aug": {(False, True)},
        "Mix & Rand Aug": {(True, True)},
    }


def test_hand_severity_is_four_backbones_by_three_losses_by_two_heads_by_five_folds() -> None:
    (study,) = studies(opened("hand-severity")).values()
    axes = {axis: len(found) for axis, found in study.axes.items()}
    assert axes == {"loss": 3, "architecture": 4, "fold": 5, "head": 2}
    (table,) = study.tables
    assert (table.rows, table.columns) == (("loss", "architecture"), ("head", "metric"))
    assert list(table.metrics) == ["acc", "cus_multi", "cus_plus", "cus_precision"]
    assert table.mean_rows
    severity = study.evaluate["severity"]
    assert severity["classes"] == study.train["classes"] == ["normal", "benign", "malignant"]
    costs = study.grid["loss"]["custom_loss"]["loss"]["costs"]
    for milder in range(3):
        for worse in range(milder + 1, 3):
            assert costs[worse][milder] > costs[milder][worse], "milder than it is costs more"


def test_pneumoconiosis_transfer_starts_twice_and_unfreezes_in_six_steps() -> None:
    file = opened("pneumoconiosis-transfer")
    found = studies(file)
    depths = labels(found["depth"], "depth")
    assert depths == ["FC", "+B5", "+B4", "+B3", "+B2", "+B1"]
    assert [one.unfrozen for one in trainings(file)[1:7]] == [0, 1, 2, 3, 4, 5]
    assert labels(found["depth"], "start") == ["random (for ImageNet)", "pneumonia"]
    (split,) = [job for job in file.jobs if isinstance(job, SplitSpec) and job.per_class]
    assert split.per_class is not None
    assert (split.mode, split.per_class.train, split.per_class.val) == ("given", 1100, 200)
    full = studies(opened("pneumoconiosis-transfer", "full"))
    assert labels(full["depth"], "start") == ["ImageNet", "pneumonia"]
    sites = {trial.labels["trained at"]: trial.jobs[0] for trial in trials_of(found["cross-site"])}
    assert {name: one.sites for name, one in sites.items() if isinstance(one, TrainSpec)} == {
        "site A": ("SITE-01",),
        "site B": ("SITE-02",),
        "both": ("SITE-01", "SITE-02"),
    }


def test_real_images_are_taken_by_configuration() -> None:
    env = {"NORMAL": "NF", "ILL": "PC", "SITE_A": "NIOSH", "SITE_B": "KM", "DATA": "/data"}
    sets = [
        "pneumoconiosis.source=/dust/images",
        "pneumoconiosis.metadata.file=/dust/metadata.csv",
    ]
    file = load(FOLDER / "pneumoconiosis-transfer.yaml", env=env, sets=sets)
    sources = {job.name: job.source for job in file.jobs if isinstance(job, IngestSpec)}
    assert sources == {"pneumonia": "/data/cxr-kermany", "pneumoconiosis": "/dust/images"}
    found = studies(file)["depth"]
    assert found.train["classes"] == ["NF", "PC"]
    assert found.tables[0].metrics == {"sensitivity": "recall/PC"}
    assert found.tables[0].subgroup == "site=NIOSH"


def test_pneumonia_best_is_three_seeds_by_the_given_folder() -> None:
    file = opened("pneumonia-best")
    (study,) = studies(file).values()
    assert [one.seed for one in trainings(file)] == [1, 2, 3]
    (split,) = [job for job in file.jobs if isinstance(job, SplitSpec)]
    assert (split.mode, split.val_share) == ("given", 0.1)
    assert not any(one.allow_leaks for one in trainings(file))
    assert study.tables[0].rows == ("seed",)
    assert {one.statistic for one in study.tables} == {"median"}
