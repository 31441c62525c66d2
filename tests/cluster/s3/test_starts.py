"""Weights on S3 that a training starts from."""

from pathlib import Path

import pytest

from cluster.storage import open_storage
from jobs import train
from schemas.bundle import digest
from schemas.errors import SourceError
from schemas.specs.train import TrainSpec
from tests.jobs.seeding import DATASET, SPLIT, open_lake

pytestmark = pytest.mark.s3


def test_a_training_starts_from_an_object(s3_root: str, tmp_path: Path) -> None:
    store, bucket = open_lake(tmp_path), open_storage(s3_root)
    start = f"{s3_root}/weights/start.safetensors"
    values = {"dataset": DATASET, "split": SPLIT, "model": "lungs", "start": start}
    spec = TrainSpec.model_validate(values)
    with pytest.raises(SourceError, match="does not exist"):
        train.plan(spec, store)
    bucket.put("weights/start.safetensors", b"one")
    plan = train.plan(spec, store)
    assert plan.params["bundle"]["data"]["start"] == {"checkpoint": digest(b"one")}
    assert plan.params["start_uri"] == start
    bucket.put("weights/start.safetensors", b"other")
    assert train.plan(spec, store).fingerprint != plan.fingerprint
