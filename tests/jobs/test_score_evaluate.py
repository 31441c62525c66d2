"""Planning scores and evaluations, and evaluating for real."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn import metrics as sk

from cluster.lake.store import LakeStore
from jobs import evaluate, score
from jobs.bundles import model_row
from schemas.errors import BundleError, SplitError
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.score import ScoreSpec
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
from workers.metrics import evaluating

MODEL_ID = "00112233aabbccdd"


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    lake = open_lake(tmp_path)
    config = bundle_config("lungs")
    seed(lake, {"models": [model_row(config, 1, nightly=False)]})
    return lake


def _score(**changes: Any) -> ScoreSpec:
    return ScoreSpec.model_validate({"dataset": DATASET, "model": "lungs"} | changes)


def _evaluate(**changes: Any) -> EvaluateSpec:
    values = {"dataset": DATASET, "split": SPLIT, "model": "lungs", "bootstrap": 50}
    return EvaluateSpec.model_validate(values | changes)


def _prediction(number: int, ill: float) -> dict[str, Any]:
    return {
        "image_id": image_id(number),
        "model_id": MODEL_ID,
        "scores": [ill, 1 - ill],
        "score": max(ill, 1 - ill),
        "backend": "torch-fp32",
    }


def test_kept_images_without_a_score_are_planned(store: LakeStore) -> None:
    seed(store, {"predictions": [_prediction(n, 0.5) for n in range(3)]})
    plan = score.plan(_score(batch_size=7, execution={"shard_images": 10}), store)
    expected = [image_id(n) for n in range(3, 40) if n != 5]
    assert plan.inputs["image_id"].to_pylist() == expected
    assert plan.counts.up_to_date == 3
    assert plan.bounds == (0, 10, 20, 30, 36)
    assert plan.params["model_id"] == MODEL_ID
    assert plan.params["bundle"].endswith("models/lungs/1")
    assert (plan.params["batch"], plan.params["device"]) == (7, "cpu")
    everything = score.plan(_score(images="all"), store)
    assert everything.inputs.num_rows == 37
    assert everything.fingerprint != plan.fingerprint


def test_speed_enters_no_fingerprint(store: LakeStore) -> None:
    one = score.plan(_score(), store)
    other = score.plan(
        _score(batch_size=1, backend="torch-fp32", execution={"gpus_per_worker": 1}), store
    )
    assert one.fingerprint == other.fingerprint
    assert other.params["device"] == "cuda"


def test_a_reject_stands_until_its_bytes_change_or_it_is_retried(store: LakeStore) -> None:
    reject = {"stage": "score", "subject": MODEL_ID, "reason": "corrupt"}
    seed(
        store,
        {
            "rejects": [
                {**reject, "image_id": image_id(8), "etag": "e8"},
                {**reject, "image_id": image_id(9), "etag": "older"},
                {**reject, "image_id": image_id(10), "etag": "e10", "subject": "another"},
            ]
        },
    )
    plan = score.plan(_score(), store)
    planned = plan.inputs["image_id"].to_pylist()
    assert image_id(8) not in planned
    assert {image_id(9), image_id(10)} <= set(planned)
    assert plan.counts.up_to_date == 1
    assert (
        image_id(8) in score.plan(_score(retry_rejects=True), store).inputs["image_id"].to_pylist()
    )


def test_transient_rejects_do_not_stand(store: LakeStore) -> None:
    transient = ["unreadable", "gone_during_run", "changed_during_run", "out_of_memory"]
    reasons = dict(enumerate([*transient, "crashed_worker"], start=20))
    reject = {"stage": "score", "subject": MODEL_ID}
    rows = [
        {**reject, "image_id": image_id(n), "etag": f"e{n}", "reason": reason}
        for n, reason in reasons.items()
    ]
    seed(store, {"rejects": rows})
    planned = score.plan(_score(), store).inputs["image_id"].to_pylist()
    assert [reasons[n] for n in reasons if image_id(n) not in planned] == ["crashed_worker"]


def test_data_sets_share_the_lease_of_a_model(store: LakeStore) -> None:
    seed(store, {"images": [image(0, "well", dataset="elsewhere")]})
    one, other = (score.plan(_score(dataset=name), store) for name in (DATASET, "elsewhere"))
    assert one.key == other.key == ("score", MODEL_ID)
    assert one.fingerprint != other.fingerprint


def test_the_bundle_says_the_batch_where_the_job_does_not(store: LakeStore) -> None:
    assert "batch" not in score.plan(_score(), store).params


def test_gone_images_and_other_data_sets_are_not_scored(store: LakeStore) -> None:
    seed(
        store,
        {"images": [image(0, "well", state="gone"), image(77, "well", dataset="elsewhere")]},
    )
    planned = score.plan(_score(images="all"), store).inputs["image_id"].to_pylist()
    assert image_id(0) not in planned
    assert image_id(77) not in planned


def test_unknown_bundle_is_named_with_known_ones(store: LakeStore) -> None:
    with pytest.raises(BundleError, match=r"got livers.*lungs"):
        score.plan(_score(model="livers"), store)


def _predictions(store: LakeStore) -> dict[int, float]:
    generator = np.random.default_rng(0)
    ill = {n: float(np.float32(generator.beta(2, 4 if n % 4 < 2 else 1))) for n in range(40)}
    del ill[39]
    seed(store, {"predictions": [_prediction(n, value) for n, value in ill.items()]})
    return ill


def _run(store: LakeStore, spec: EvaluateSpec) -> Any:
    plan = evaluate.plan(spec, store)
    return evaluate.run(spec, InlinePool(evaluating.load(plan.params)), store)


def test_evaluation_equals_scikit_learn_and_sql(store: LakeStore) -> None:
    ill = _predictions(store)
    report = _run(store, _evaluate(name="first"))
    assert report.status == "published"
    assert (report.counts.done, report.counts.input) == (15, 15)
    assert report.facts["without a score"] == 1
    assert set(report.facts) > {"val auc", "val accuracy", "test auc", "test accuracy"}
    rows = store.query("SELECT * FROM metrics").to_pylist()
    found = {(one["part"], one["metric"], one["category"]): one for one in rows}
    assert {one["part"] for one in rows} == {"val", "test"}
    assert {(one["study"], one["dataset"], one["model_id"]) for one in rows} == {
        ("first", DATASET, MODEL_ID)
    }
    numbers = range(32, 39)
    truth = [n % 4 >= 2 for n in numbers]
    scores = [ill[n] for n in numbers]
    chosen = [value >= 0.25 for value in scores]
    assert found["test", "auc", None]["value"] == pytest.approx(sk.roc_auc_score(truth, scores))
    assert found["test", "accuracy", None]["value"] == sk.accuracy_score(truth, chosen)
    assert found["test", "sensitivity", "ill"]["value"] == sk.recall_score(truth, chosen)
    assert found["test", "accuracy", None]["n"] == 7
    assert found["test", "accuracy", None]["ci_low"] <= found["test", "accuracy", None]["value"]

    by_sql = store.query(
        "SELECT images.label || '|' || scored.label AS cell, count(*) AS n "
        "FROM latest_predictions AS scored JOIN current_images AS images USING (image_id) "
        "JOIN splits USING (image_id) WHERE splits.part = 'test' AND scored.name = 'lungs' "
        "GROUP BY 1"
    ).to_pylist()
    confusion = {one["category"]: one["value"] for one in rows if one["part"] == "test"}
    cells = {row["cell"]: row["n"] for row in by_sql}
    assert sum(cells.values()) == 7
    for cell in ("ill|ill", "ill|well", "well|ill", "well|well"):
        assert confusion[cell] == cells.get(cell, 0)


def test_evaluation_of_the_same_rows_is_up_to_date(store: LakeStore) -> None:
    _predictions(store)
    _run(store, _evaluate())
    again = _run(store, _evaluate(execution={"workers": 3}))
    assert again.status == "up_to_date"
    assert (again.counts.up_to_date, again.counts.input) == (15, 15)
    seed(store, {"predictions": [_prediction(39, 0.4)]})
    more = _run(store, _evaluate())
    assert (more.status, more.counts.done) == ("published", 16)


def test_evaluations_of_one_model_and_split_stand_beside_each_other(store: LakeStore) -> None:
    _predictions(store)
    jobs = [_evaluate(), _evaluate(parts=("test",)), _evaluate(seed=3), _evaluate(name="later")]
    assert [_run(store, job).status for job in jobs] == ["published"] * 4
    assert [_run(store, job).status for job in jobs] == ["up_to_date"] * 4
    studies = store.query("SELECT DISTINCT study FROM metrics ORDER BY study")["study"]
    assert studies.to_pylist() == ["evaluate", "later"]


def test_labels_that_come_back_are_evaluated_again(store: LakeStore) -> None:
    _predictions(store)
    _run(store, _evaluate())
    for label in ("well", "ill"):
        seed(store, {"images": [image(38, label)]})
        assert _run(store, _evaluate()).status == "published"
    assert _run(store, _evaluate()).status == "up_to_date"


def test_moved_operating_point_is_evaluated_anew(store: LakeStore) -> None:
    _predictions(store)
    before = _run(store, _evaluate())
    row = model_row(bundle_config("lungs"), 1, nightly=False)
    point = json.dumps({"positive": "ill", "threshold": 0.9, "rule": "youden"})
    seed(store, {"models": [{**row, "version": 2, "operating_point": point}]})
    after = _run(store, _evaluate())
    assert (before.status, after.status) == ("published", "published")


def test_nothing_scored_is_nothing_to_do(store: LakeStore) -> None:
    report = _run(store, _evaluate())
    assert report.status == "up_to_date"
    assert report.facts["without a score"] == 16


def test_only_the_parts_that_are_asked_for_are_scored(store: LakeStore) -> None:
    plan = score.plan(_score(split=SPLIT, parts=("val", "test")), store)
    assert plan.inputs["image_id"].to_pylist() == [image_id(n) for n in range(24, 40)]
    assert plan.counts.input == 0  # the others are nobody's business here
    test = score.plan(_score(split=SPLIT, parts=("test",)), store)
    assert test.inputs.num_rows == 8
    assert test.fingerprint != plan.fingerprint
    seed(store, {"predictions": [_prediction(n, 0.5) for n in range(32, 40)]})
    # A score is of an image by a model: what one scope has scored, no other scores again.
    everything = score.plan(_score(), store)
    assert (everything.inputs.num_rows, everything.counts.up_to_date) == (31, 8)
    assert everything.fingerprint != plan.fingerprint
    again = score.plan(_score(split=SPLIT, parts=("test",)), store)
    assert (again.inputs.num_rows, again.counts.up_to_date, again.counts.input) == (0, 8, 8)


def test_only_the_fold_held_out_is_scored(store: LakeStore) -> None:
    seed(store, {"splits": [place(n, "train", fold=n // 8) for n in range(32)]})
    plan = score.plan(_score(split=SPLIT, fold=2), store)
    assert plan.inputs["image_id"].to_pylist() == [image_id(n) for n in range(16, 24)]
    with pytest.raises(SplitError, match="no such fold"):
        score.plan(_score(split=SPLIT, fold=4), store)


def test_a_split_that_is_not_there_is_not_scored(store: LakeStore) -> None:
    with pytest.raises(SplitError, match=r"no images.*split other.*none in train, val, test"):
        score.plan(_score(split="other"), store)
    for wrong in ({"parts": ("val",)}, {"fold": 1}, {"split": SPLIT, "parts": (), "fold": None}):
        with pytest.raises(ValidationError):
            _score(**wrong)
