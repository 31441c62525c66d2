"""What a job's fingerprint is made of: fields that are off by default are left out, and no more."""

from typing import Any

import pytest

from schemas.specs import SPECS
from schemas.specs.base import JobSpec, identity_of
from schemas.specs.clean import CleanSpec
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.ingest import IngestSpec

REQUIRED: dict[str, Any] = {
    "dataset": "d", "split": "s", "model": "m", "target": "t", "source": "x", "train": {},
    "annotations": "a", "models": ("m",),
}  # fmt: skip


def made(kind: type[JobSpec]) -> JobSpec:
    fields = {name: REQUIRED[name] for name, one in kind.model_fields.items() if one.is_required()
              and name in REQUIRED}  # fmt: skip
    if kind is SPECS["study"]:
        fields["train"] = {"dataset": "d", "split": "s"}
    if kind is SPECS["annotate"]:
        fields["dicom"] = {}
    return kind.model_validate(fields)


@pytest.mark.parametrize("kind", SPECS.values(), ids=SPECS)
def test_what_a_run_recorded_is_recognised(kind: type[JobSpec]) -> None:
    spec = made(kind)
    assert identity_of(kind, spec.model_dump(mode="json")) == spec.identity()
    assert not {None, False} & {
        one for one in spec.identity().values() if not isinstance(one, list | dict)
    } - {0}
    assert [] not in spec.identity().values()


def test_only_what_is_off_by_default_is_left_out() -> None:
    plain = EvaluateSpec(dataset="d", split="s", model="m")
    assert "fold" not in plain.identity()
    assert plain.model_copy(update={"fold": 0}).identity()["fold"] == 0
    silent = plain.model_copy(update={"pictures": False})
    assert silent.identity()["pictures"] is False  # on by default, so off is said
    assert CleanSpec(dataset="d", phash=None).identity()["phash"] is None
    assert CleanSpec(dataset="d").identity()["phash"] == {"max_distance": 4}


def test_a_field_that_is_used_enters() -> None:
    plain = IngestSpec(source="x")
    assert "labels" not in plain.identity()
    assert plain.model_copy(update={"labels": {"a": "b"}}).identity()["labels"] == {"a": "b"}


def test_a_field_that_is_gone_stays() -> None:
    spec = made(SPECS["clean"])
    recorded = {**spec.model_dump(mode="json"), "no_longer": 1}
    assert identity_of(SPECS["clean"], recorded) != spec.identity()
