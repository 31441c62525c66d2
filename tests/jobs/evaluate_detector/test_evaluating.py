"""A detector's evaluation in the lake: what counts, at which confidence, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.lake.store import LakeStore
from jobs import evaluate_detector
from schemas.errors import BundleError, LeakError, SourceError, SplitError
from schemas.protocols import Report
from schemas.specs.evaluate_detector import EvaluateDetectorSpec
from tests.jobs.detecting import (
    MODEL_ID,
    SOURCE,
    ComputingPool,
    detector_config,
    facts,
    figures,
    found,
    mark,
    put_detector,
    rejected,
    scored,
)
from tests.jobs.seeding import DATASET, SPLIT, bundle_config, image_id, open_lake, place, seed
from workers.figures.detection import draw_detection
from workers.metrics import detecting

BOX, FAR = (10, 10, 40, 40), (100, 100, 30, 30)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test images 32 to 39 (39 not annotated, 38 not scored), validation images 24 to 31."""
    folder = tmp_path_factory.mktemp("made")
    lake = open_lake(folder)
    put_detector(lake, detector_config("liver"))
    seed(
        lake,
        {
            "annotations": [
                mark(32, "cyst", BOX),
                mark(33, "cyst", BOX),
                mark(34, "HCC", BOX),
                mark(35, None),
                mark(36, "HCC", FAR),
                mark(36, "scar", BOX),  # no class of the model: a region to ignore
                mark(37, "cyst", FAR),
                mark(38, "cyst", BOX),
                *(mark(number, "HCC", BOX) for number in range(24, 32)),
            ],
            "predictions": scored([*range(24, 38), 39]),
            "detections": [
                found(32, "cyst", 0.9, BOX),
                found(32, "HCC", 0.8, (12, 12, 40, 40)),  # the same lesion: counts once
                found(33, "HCC", 0.7, BOX),  # found as another
                found(34, "HCC", 0.2, BOX),  # below the bundle's threshold
                found(35, "cyst", 0.6, FAR),  # an over-detection
                found(36, "cyst", 0.9, BOX),  # within what is ignored
                found(36, "HCC", 0.9, FAR),
                found(39, "HCC", 0.9, BOX),
                *(found(number, "HCC", 0.15, BOX) for number in range(24, 32)),
            ],
        },
    )
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> LakeStore:
    """A lake of the test's own."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return LakeStore.open(str(tmp_path / "lake"))


def asked(**changes: Any) -> EvaluateDetectorSpec:
    values = {
        "dataset": DATASET, "split": SPLIT, "model": "liver", "annotations": SOURCE,
        "parts": ("test",), "bootstrap": 20,
    }  # fmt: skip
    return EvaluateDetectorSpec.model_validate(values | changes)


def run(store: LakeStore, spec: EvaluateDetectorSpec) -> Report:
    return evaluate_detector.run(spec, ComputingPool(detecting.load), store)


def test_what_was_annotated_and_scored_counts_by_diagnosis(store: LakeStore) -> None:
    report = run(store, asked())
    assert (report.status, report.counts.done) == ("published", 6)
    told = figures(store, "test")
    cells = {name: value for (metric, name), value in told.items() if metric == "confusion"}
    assert {name: int(value) for name, value in cells.items() if value} == {
        "cyst|cyst": 1, "cyst|HCC": 1, "cyst|none": 1, "HCC|none": 1, "HCC|HCC": 1, "none|cyst": 1,
    }  # fmt: skip
    assert len(cells) == 9
    assert [told["total", name] for name in ("cyst", "HCC", None)] == [3, 2, 5]
    assert [told["over_detections", name] for name in ("cyst", "HCC", None)] == [1, 0, 1]
    assert [told["misses", name] for name in ("cyst", "HCC", None)] == [1, 1, 2]
    assert told["recall", "cyst"] == pytest.approx(1 / 3)
    assert told["precision", "HCC"] == pytest.approx(1 / 2)
    assert told["threshold", None] == 0.3
    # One false positive in six images: all that is found at all is found within one an image.
    assert told["froc", "1"] == pytest.approx(4 / 5)
    # Found as HCC counts as found; 0.6 is above what the false positive says.
    assert told["froc", "0.125"] == pytest.approx(3 / 5)
    assert 0 < told["ap50", None] < 1
    noticed = facts(store, "evaluate_detector")
    assert (noticed["not annotated"], noticed["without a score"]) == (1, 1)
    assert noticed["test sensitivity at 1 false positive an image"] == 0.8


def test_nothing_is_done_twice_until_boxes_change(store: LakeStore) -> None:
    run(store, asked())
    run(store, asked(parts=("val",)))
    assert run(store, asked()).status == "up_to_date"  # the other question stands between
    seed(store, {"annotations": [mark(35, "cyst", FAR, made_from="anew")]})
    assert run(store, asked()).status == "published"
    assert figures(store, "test")["confusion", "none|cyst"] == 0


def test_a_sweep_chooses_on_the_validation_part(store: LakeStore) -> None:
    run(store, asked(threshold="sweep"))
    told = figures(store, "test")
    # All of validation is found at 0.15 alone; 0.00 finds as much, and the lowest of equals counts.
    assert told["threshold", None] == 0.0
    assert told["confusion", "HCC|HCC"] == 2
    extra = [found(n, "HCC", 0.1, FAR) for n in range(24, 32)]
    rows = [found(n, "HCC", 0.15, BOX) for n in range(24, 32)]
    seed(store, {"predictions": scored(range(24, 32)), "detections": [*rows, *extra]})
    run(store, asked(threshold="sweep"))
    assert figures(store, "test")["threshold", None] == 0.15
    assert facts(store, "evaluate_detector")["threshold"] == 0.15


def test_a_sweep_needs_images(store: LakeStore) -> None:
    seed(store, {"annotations": [mark(n, None, made_from=None) for n in range(24, 32)]})
    with pytest.raises(SplitError, match="no image to choose"):
        run(store, asked(threshold="sweep"))


def test_all_categories_as_one(store: LakeStore) -> None:
    run(store, asked(one_class=True))
    told = figures(store, "test")
    assert told["total", "lesion"] == 5
    assert told["confusion", "lesion|lesion"] == 3
    assert told["confusion", "none|lesion"] == 1
    assert ("ap", "lesion") not in told
    put_detector(store, detector_config("merged", "ee" * 8, classes=("lesion",), merged=True))
    seed(
        store,
        {
            "predictions": scored(range(32, 38), "ee" * 8),
            "detections": [found(36, "lesion", 0.9, BOX, model_id="ee" * 8)],
        },
    )
    run(store, asked(model="merged"))
    told = figures(store, "test")
    assert (told["total", "lesion"], told["confusion", "lesion|lesion"]) == (6, 1)  # scars, too


def test_more_regions_may_be_ignored_and_more_images_taken(store: LakeStore) -> None:
    seed(store, {"annotations": [mark(35, "cyst", FAR, source="review", iscrowd=True)]})
    run(store, asked(ignored="review"))
    assert figures(store, "test")["over_detections", None] == 0
    assert run(store, asked(images="all")).counts.done == 7
    assert figures(store, "test")["over_detections", None] == 2


def test_lesions_whose_annotation_was_rejected_are_no_over_detections(store: LakeStore) -> None:
    seed(store, {"rejects": [rejected(39), rejected(35)]})  # 35 was annotated before
    assert run(store, asked(images="all")).counts.done == 6
    assert figures(store, "test")["over_detections", None] == 1
    told = facts(store, "evaluate_detector")
    causes = ("not annotated", "annotation rejected", "without a score")
    assert [told[cause] for cause in causes] == [0, 1, 1]
    run(store, asked(seed=1))
    told = facts(store, "evaluate_detector")
    assert (told["not annotated"], told["annotation rejected"]) == (0, 1)


def test_pictures_lie_in_the_lake_and_are_the_same_again(store: LakeStore) -> None:
    plan = evaluate_detector.plan(asked(), store)
    work = detecting.load(plan.params, draw_detection)
    first, second = (work(plan.inputs, []).files for _ in range(2))
    assert set(first) == {"test-confusion.png", "test-froc.png"}
    assert first == second
    assert first["test-froc.png"].startswith(b"\x89PNG")
    folder = f"reports/evaluate_detector/liver/liver@1/{DATASET}/{SPLIT}/{SOURCE}"
    assert plan.facts["pictures"] == folder


def test_what_can_not_be_evaluated(store: LakeStore) -> None:
    with pytest.raises(SourceError, match="No such source"):
        run(store, asked(annotations="nobody"))
    put_detector(store, bundle_config("lungs", "aa" * 8))
    with pytest.raises(BundleError, match="no detector"):
        run(store, asked(model="lungs"))
    put_detector(store, detector_config("odd", "bb" * 8, classes=("none", "cyst")))
    with pytest.raises(BundleError, match="nothing found"):
        run(store, asked(model="odd"))


def test_a_model_is_not_asked_about_what_it_learned_from(store: LakeStore) -> None:
    """The images tested on are those another split trained on."""
    other = [
        {
            "split_name": "other", "dataset": DATASET, "image_id": image_id(n), "group_id": f"g{n}",
            "part": "train" if n >= 32 else "test",
        }
        for n in range(40)
    ]  # fmt: skip
    seed(store, {"splits": other})
    data = {"dataset": DATASET, "split": "other"}
    put_detector(store, detector_config("knowing", "dd" * 8, data=data))
    with pytest.raises(LeakError, match="learned from images"):
        run(store, asked(model="knowing"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"fold": 1}, "fold takes the place of parts"),
        ({"sweep_part": "val"}, "sweep_part is of"),
        ({"bootstrap": 0, "seed": 3}, "seed is of the bootstrap"),
        ({"ignored": SOURCE}, "ignored must be another source"),
        ({"threshold": "sweep", "sweep_part": "test"}, "Input should be 'train' or 'val'"),
    ],
)
def test_specs_that_contradict_themselves(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        asked(**fields)


def test_a_fold_has_nothing_to_sweep_on() -> None:
    with pytest.raises(ValidationError, match="no part to sweep on"):
        EvaluateDetectorSpec(
            dataset="d", split="s", model="m", annotations="a", fold=0, threshold="sweep"
        )


def test_a_fold_held_out_is_reported_as_test(store: LakeStore) -> None:
    """Though the split has no part test at all."""
    rows = [place(n, "train", split_name="folded", fold=n % 4 // 2) for n in range(24, 38)]
    seed(store, {"splits": rows})
    spec = EvaluateDetectorSpec(
        dataset=DATASET, split="folded", model="liver", annotations=SOURCE, fold=0, bootstrap=0
    )
    assert run(store, spec).counts.done == 8  # 24, 25, 28, 29, 32, 33, 36 and 37
    told = figures(store, "test")
    assert [told["total", name] for name in ("cyst", "HCC")] == [3, 5]
    rows = store.query("SELECT DISTINCT fold, part, ci_low FROM metrics").to_pylist()
    assert rows == [{"fold": 0, "part": "test", "ci_low": None}]
    with pytest.raises(SplitError, match="no such fold"):
        run(store, spec.model_copy(update={"fold": 2}))


def test_the_model_id_stands_in_every_row(store: LakeStore) -> None:
    run(store, asked(study="liver", trial="flex"))
    rows = store.query("SELECT DISTINCT study, trial, model_id, n FROM metrics").to_pylist()
    assert rows == [{"study": "liver", "trial": "flex", "model_id": MODEL_ID, "n": 6}]
