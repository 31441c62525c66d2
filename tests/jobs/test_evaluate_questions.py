"""What an evaluation can be asked: severity, subgroups, another model, pictures."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn import metrics as sk

from cluster.lake.store import LakeStore
from cluster.shards import ShardProcess, ShardTask, encode_rows
from jobs import evaluate
from jobs.bundles import model_row
from schemas.bundle import OperatingPoint
from schemas.errors import BundleError, LeakError
from schemas.plan import ShardResult
from schemas.specs.evaluate import EvaluateSpec
from tests.jobs.detecting import detector_config
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
from workers.figures.evaluation import draw_evaluation
from workers.metrics import evaluating

MODELS = {"lungs": "00112233aabbccdd", "rival": "ffeeddccbbaa9988"}
TEST = range(32, 40)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Two models of the same classes in another order; both have scored the test part."""
    lake = open_lake(tmp_path)
    rival = bundle_config(
        "rival",
        MODELS["rival"],
        classes=("well", "ill"),
        operating_point=OperatingPoint(positive="ill", threshold=0.6, rule="f1"),
    )
    configs = [bundle_config("lungs"), rival]
    seed(lake, {"models": [model_row(config, 1, nightly=False) for config in configs]})
    seed(lake, {"predictions": [_prediction("lungs", n, _ill("lungs", n)) for n in TEST]})
    rows = [_prediction("rival", n, 1 - _ill("rival", n)) for n in TEST if n != 39]
    seed(lake, {"predictions": rows})
    return lake


def _ill(model: str, number: int) -> float:
    """The probability that an image is ill, by a model."""
    generator = np.random.default_rng([number, len(model)])
    return float(np.float32(generator.beta(2, 4 if number % 4 < 2 else 1)))


def _prediction(model: str, number: int, first: float) -> dict[str, Any]:
    return {
        "image_id": image_id(number),
        "model_id": MODELS[model],
        "scores": [first, 1 - first],
        "score": max(first, 1 - first),
        "backend": "torch-fp32",
    }


def _asked(**changes: Any) -> EvaluateSpec:
    values = {"dataset": DATASET, "split": SPLIT, "model": "lungs", "bootstrap": 20}
    return EvaluateSpec.model_validate(values | {"parts": ("test",)} | changes)


def _run(store: LakeStore, spec: EvaluateSpec) -> Any:
    plan = evaluate.plan(spec, store)
    return evaluate.run(spec, InlinePool(evaluating.load(plan.params)), store)


def _rows(store: LakeStore) -> dict[tuple[str, str, str | None], dict[str, Any]]:
    rows = store.query("SELECT * FROM metrics").to_pylist()
    return {(row["subgroup"], row["metric"], row["category"]): row for row in rows}


def _computed(store: LakeStore, spec: EvaluateSpec) -> ShardResult:
    """The shard's result, with pictures, as a worker computes it."""
    plan = evaluate.plan(spec, store)
    return evaluating.load(plan.params, draw_evaluation)(plan.inputs, [])


def test_figures_bear_the_study_and_the_trial(store: LakeStore) -> None:
    _run(store, _asked(name="judge"))
    _run(store, _asked(name="judge", study="heads", trial="loss=focal, fold=1"))
    named = store.query("SELECT DISTINCT study, trial, subgroup FROM metrics ORDER BY study")
    assert [tuple(row.values()) for row in named.to_pylist()] == [
        ("heads", "loss=focal, fold=1", ""),
        ("judge", SPLIT, ""),
    ]


def test_trials_with_equal_weights_do_not_wait_for_each_other(store: LakeStore) -> None:
    one, other = (evaluate.plan(_asked(trial=name), store) for name in ("one", "other"))
    assert one.key != other.key
    assert one.fingerprint != other.fingerprint


def test_whatever_is_asked_anew_is_another_question(store: LakeStore) -> None:
    weights = [[0, 1], [9, 0]]
    changes: list[dict[str, Any]] = [
        {},
        {"severity": {"classes": ["well", "ill"]}},
        {"severity": {"classes": ["ill", "well"]}},
        {"severity": {"classes": ["well", "ill"], "costs": weights}},
        {"severity": {"classes": ["well", "ill"], "false_positive_weights": weights}},
        {"subgroups": ["sex"]},
        {"subgroups": ["age"]},
        {"subgroups": ["age"], "age_bands": [50]},
        {"against": "rival"},
        {"pictures": False},
        {"study": "other"},
        {"trial": "other"},
        {"seed": 4},
    ]
    plans = [evaluate.plan(_asked(**change), store) for change in changes]
    assert len({plan.fingerprint for plan in plans}) == len(changes)
    assert len({plan.facts["_asked"] for plan in plans}) == len(changes)
    same = evaluate.plan(_asked(execution={"workers": 2}, name="evaluate"), store)
    assert same.fingerprint == plans[0].fingerprint


def test_questions_stand_beside_each_other(store: LakeStore) -> None:
    for asked in (_asked(), _asked(against="rival", severity={"classes": ["well", "ill"]})):
        assert _run(store, asked).status == "published"
        assert _run(store, asked).status == "up_to_date"
    assert _run(store, _asked()).status == "up_to_date"


def test_severity_takes_the_classes_in_its_own_order(store: LakeStore) -> None:
    costs = [[0, 1], [10, 0]]
    _run(store, _asked(severity={"classes": ["well", "ill"], "costs": costs}))
    found = _rows(store)
    truth = np.asarray([n % 4 >= 2 for n in TEST])
    chosen = np.asarray([_ill("lungs", n) >= 0.25 for n in TEST])
    missed = float((truth & ~chosen).sum() / truth.sum())
    assert found["", "under_triage", "ill"]["value"] == pytest.approx(missed)
    assert found["", "custom_plus", None]["value"] == pytest.approx(missed)
    cost = ((~truth & chosen).sum() + 10 * (truth & ~chosen).sum()) / 8
    assert found["", "expected_cost", None]["value"] == pytest.approx(cost)


def test_severity_of_other_classes_is_an_error(store: LakeStore) -> None:
    with pytest.raises(BundleError, match=r"severity\.classes\): got mild, ill.*ill, well"):
        evaluate.plan(_asked(severity={"classes": ["mild", "ill"]}), store)


def test_subgroups_are_reported_apart(store: LakeStore) -> None:
    known = {32: ("F", 30, "A"), 33: ("F", 70, "A"), 34: ("M", 70, "A"), 35: ("M", None, "B")}
    rows = [
        image(n, "well" if n % 4 < 2 else "ill", sex=sex, age=age, site=site)
        for n, (sex, age, site) in known.items()
    ]
    seed(store, {"images": rows})
    _run(store, _asked(subgroups=("sex", "age", "site")))
    found = _rows(store)
    sizes = {key[0]: row["n"] for key, row in found.items() if key[1] == "accuracy"}
    assert sizes == {
        "": 8,
        "sex=F": 2,
        "sex=M": 2,
        "sex=unknown": 4,
        "age=18-40": 1,
        "age=60-75": 2,
        "age=unknown": 5,
        "site=A": 3,
        "site=B": 1,
        "site=unknown": 4,
    }
    truth, chosen = [False, False, True], [_ill("lungs", n) >= 0.25 for n in (32, 33, 34)]
    expected = sk.accuracy_score(truth, chosen)
    assert found["site=A", "accuracy", None]["value"] == pytest.approx(expected)
    assert found["site=A", "confusion", "ill|ill"]["value"] == int(chosen[2])
    assert ("sex=F", "auc", None) not in found


def test_metadata_counts_where_a_subgroup_is_asked_for(store: LakeStore) -> None:
    _run(store, _asked())
    _run(store, _asked(subgroups=("site",)))
    seed(store, {"images": [image(33, "well", site="C")]})
    assert _run(store, _asked()).status == "up_to_date"
    assert _run(store, _asked(subgroups=("site",))).status == "published"


def test_two_models_are_compared_on_images_both_have_scored(store: LakeStore) -> None:
    report = _run(store, _asked(against="rival"))
    assert report.facts["against"] == "rival@1"
    assert report.facts["without a score by rival@1"] == 1
    assert set(report.facts) > {"test delong_p", "test mcnemar_p", "test auc_difference"}
    found = _rows(store)
    numbers = [n for n in TEST if n != 39]
    truth = [n % 4 >= 2 for n in numbers]
    aucs, right = [], []
    for model, threshold in (("lungs", 0.25), ("rival", 0.6)):
        scores = [_ill(model, n) for n in numbers]
        aucs.append(sk.roc_auc_score(truth, scores))
        right.append(sk.accuracy_score(truth, [one >= threshold for one in scores]))
    difference = found["", "auc_difference", "rival@1"]
    assert difference["value"] == pytest.approx(aucs[0] - aucs[1])
    assert difference["n"] == 7
    assert difference["ci_low"] <= difference["value"] <= difference["ci_high"]
    accuracy = found["", "accuracy_difference", "rival@1"]
    assert accuracy["value"] == pytest.approx(right[0] - right[1])
    assert 0 < found["", "delong_p", "rival@1"]["value"] <= 1
    assert found["", "accuracy", None]["n"] == 8


def test_new_scores_of_the_other_model_are_compared_anew(store: LakeStore) -> None:
    _run(store, _asked(against="rival"))
    _run(store, _asked())
    seed(store, {"predictions": [_prediction("rival", 39, 0.5)]})
    assert _run(store, _asked(against="rival")).status == "published"
    assert _run(store, _asked()).status == "up_to_date"


def test_a_model_nobody_scored_with_is_compared_on_nothing(store: LakeStore) -> None:
    seed(store, {"models": [model_row(bundle_config("new", "0" * 16), 1, nightly=False)]})
    report = _run(store, _asked(against="new"))
    assert report.facts["without a score by new@1"] == 8
    assert not any(metric.endswith("_p") for _, metric, _ in _rows(store))


def test_models_of_other_classes_cannot_be_compared(store: LakeStore) -> None:
    config = bundle_config("knees", "1" * 16, classes=("bent", "straight"), operating_point=None)
    seed(store, {"models": [model_row(config, 1, nightly=False)]})
    with pytest.raises(BundleError, match=r"against knees@1\): got bent, straight.*ill, well"):
        evaluate.plan(_asked(against="knees"), store)


def test_the_other_model_must_not_have_learned_from_the_images(store: LakeStore) -> None:
    data = {"dataset": DATASET, "split": SPLIT, "fold": None}
    told = bundle_config("cheat", "2" * 16, data=data)
    seed(store, {"models": [model_row(told, 1, nightly=False)]})
    with pytest.raises(LeakError, match=r"cheat@1, part test of later\): got 1 of 1 images"):
        evaluate.plan(_asked(against="cheat", split=_learned_split(store)), store)


def _learned_split(store: LakeStore) -> str:
    """Another split, in which a training image of the first is one to test on."""
    row = {"split_name": "later", "dataset": DATASET, "image_id": image_id(3), "part": "test"}
    seed(store, {"splits": [row]})
    return "later"


def test_pictures_lie_below_the_lake_apart_for_each_question(store: LakeStore) -> None:
    plan = evaluate.plan(_asked(study="heads", trial="loss=focal"), store)
    folder = f"reports/heads/loss=focal/lungs@1/{DATASET}/{SPLIT}"
    assert plan.facts["pictures"] == folder
    assert plan.params["target"] == f"{store.root}/{folder}"
    result = _computed(store, _asked(study="heads", trial="loss=focal"))
    assert sorted(result.files) == [
        "test-confusion.png",
        "test-precision-recall.png",
        "test-reliability.png",
        "test-roc.png",
    ]
    odd = [
        str(evaluate.plan(_asked(trial=trial), store).facts["pictures"])
        for trial in ("a/b", "a b", "../../a", "..", "ä")
    ]
    assert len(set(odd)) == 5
    assert all(len(one.split("/")) == 6 and ".." not in one for one in odd)


def test_a_later_version_of_the_same_weights_has_its_own_pictures(store: LakeStore) -> None:
    _run(store, _asked())
    row = model_row(bundle_config("lungs"), 2, nightly=False)
    seed(store, {"models": [row]})
    assert "lungs@2" in _run(store, _asked()).facts["pictures"]
    assert _run(store, _asked(pictures=False)).status == "published"
    assert _run(store, _asked()).status == "up_to_date"


def test_a_worker_writes_the_pictures_where_the_report_says(store: LakeStore) -> None:
    spec = _asked(trial="loss=focal,head+svm")
    plan = evaluate.plan(spec, store)
    with store.lease(plan.key):
        run = store.begin(plan, {})
        process = ShardProcess(store.root, run.id, "evaluate", plan.params)
        task = ShardTask(run.pending()[0], encode_rows(plan.inputs), {})
        assert process.run(task).done == 8
        report = store.commit(run, {})
    folder = Path(store.root) / report.facts["pictures"]
    written = {one.name: one.read_bytes() for one in folder.iterdir()}
    assert written == _computed(store, _asked(trial="computed")).files


def test_no_pictures_no_folder(store: LakeStore) -> None:
    assert "pictures" not in evaluate.plan(_asked(pictures=False), store).facts
    assert not evaluating.load(evaluate.plan(_asked(), store).params)(
        evaluate.plan(_asked(), store).inputs, []
    ).files


def test_a_spec_is_checked_whole(store: LakeStore) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "classes name one class twice": {"severity": {"classes": ["a", "a"]}},
        "costs must have 2 rows": {"severity": {"classes": ["a", "b"], "costs": [[0, 1]]}},
        "false_positive_weights must have": {
            "severity": {"classes": ["a", "b"], "false_positive_weights": [[1], [1]]}
        },
        "greater than or equal to 0": {
            "severity": {"classes": ["a", "b"], "costs": [[0, -1], [1, 0]]}
        },
        "at least 2 items": {"severity": {"classes": ["a"]}},
        "age_bands must ascend": {"age_bands": [40, 18]},
    }
    for message, change in wrong.items():
        with pytest.raises(ValidationError, match=message):
            _asked(**change)
    kept = _asked(severity={"classes": ["well", "ill"], "costs": [[0, 0.5], [2, 0]]})
    assert json.loads(json.dumps(kept.identity()))["severity"]["costs"] == [[0, 0.5], [2, 0]]


def test_what_another_driver_wrote_before_the_lease_counts(
    store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LakeStore.lease

    @contextmanager
    def late(self: LakeStore, key: tuple[str, ...]) -> Iterator[None]:
        if key[0] == "evaluate":
            seed(store, {"predictions": [_prediction("rival", 39, 0.5)]})
        with plain(self, key):
            yield

    monkeypatch.setattr(LakeStore, "lease", late)
    report = _run(store, _asked(against="rival"))
    assert report.facts["without a score by rival@1"] == 0
    assert _rows(store)["", "auc_difference", "rival@1"]["n"] == 8


@pytest.mark.parametrize("asked", [{"model": "boxes"}, {"against": "boxes"}])
def test_a_detector_is_judged_by_another_kind(store: LakeStore, asked: dict[str, str]) -> None:
    """Its confidences are no probabilities: where nothing was found, all are 0."""
    boxes = detector_config("boxes", "1122334455667788", classes=("ill", "well"))
    seed(store, {"models": [model_row(boxes, 1, nightly=False)]})
    with pytest.raises(BundleError, match=r"no classifier \(boxes@1\): got centernet") as error:
        evaluate.plan(_asked(**asked), store)
    assert "`kind: evaluate_detector` is for detectors" in str(error.value)
