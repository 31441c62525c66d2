"""Rows of `models` as the views read them."""

from collections import Counter
from pathlib import Path

import numpy as np

from cluster.lake.store import LakeStore
from cluster.works import measure_drift
from jobs.bundles import model_row
from tests.jobs.detecting import MODEL_ID, detector_config
from tests.jobs.seeding import image_id, seed


def test_a_detectors_label_is_that_of_a_box_above_its_operating_point(tmp_path: Path) -> None:
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    row = model_row(detector_config("boxes", threshold=0.3), 1, nightly=False)
    scored = [
        {"image_id": image_id(place), "model_id": MODEL_ID, "scores": scores, "score": max(scores)}
        for place, scores in enumerate(([0.1, 0.31], [0.9, 0.4], [0.29, 0.2], [0.0, 0.0]))
    ]
    seed(store, {"models": [row], "predictions": scored})
    found = store.query("SELECT image_id, score, label FROM latest_predictions").to_pylist()
    assert {one["image_id"]: one["label"] for one in found} == {
        image_id(0): "HCC",
        image_id(1): "cyst",
        image_id(2): None,
        image_id(3): None,
    }


def test_the_gate_counts_the_labels_that_the_view_shows(tmp_path: Path) -> None:
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    row = model_row(detector_config("boxes", threshold=0.3), 1, nightly=False)
    generator = np.random.default_rng(8)
    confidences = np.float32(generator.choice([0, 0.1, 0.3, 0.31, 0.8], (60, 2)))
    scored = [
        {"image_id": image_id(n), "model_id": MODEL_ID, "scores": one, "score": max(one)}
        for n, one in enumerate(confidences.tolist())
    ]
    seed(store, {"models": [row], "predictions": scored})
    labels = store.query("SELECT coalesce(label, 'none') AS label FROM latest_predictions")
    expected = {name: n / 60 for name, n in Counter(labels["label"].to_pylist()).items()}
    assert set(expected) == {"cyst", "HCC", "none"}
    scores = store.query("SELECT scores FROM predictions")
    found = measure_drift(scores, scores, store.bundle("boxes"))["class_share"]
    assert {one["of"]: one["now"] for one in found} == expected
