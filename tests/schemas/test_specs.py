"""Specs of jobs: what they fill in, refuse, and count as identity."""

import pytest
from pydantic import ValidationError

from schemas.jobschema import allowed_values, job_file_schema, kind_schema, schema_at
from schemas.specs import SPECS, JobSpec
from schemas.specs.clean import CleanSpec
from schemas.specs.ingest import IngestSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.split import SplitSpec

REQUIRED = {
    "phantoms": {"target": "t"},
    "ingest": {"source": "s"},
    "annotate": {"dataset": "d", "dicom": {}},
    "profile": {"dataset": "d"},
    "clean": {"dataset": "d"},
    "prepare": {"dataset": "d"},
    "split": {"dataset": "d"},
    "pretrain": {"dataset": "d", "split": "s", "model": "m"},
    "train": {"dataset": "d", "split": "s", "model": "m"},
    "train_detector": {"dataset": "d", "split": "s", "model": "m", "annotations": "a"},
    "score": {"dataset": "d", "model": "m"},
    "evaluate": {"dataset": "d", "split": "s", "model": "m"},
    "embed": {"dataset": "d", "model": "m"},
    "evaluate_detector": {"dataset": "d", "split": "s", "model": "m", "annotations": "a"},
    "review": {"dataset": "d", "split": "s", "annotations": "a", "models": ["m"]},
    "explain": {"dataset": "d", "model": "m"},
    "study": {"train": {"dataset": "d", "split": "s"}},
}


def make(kind: str, **fields: object) -> JobSpec:
    return SPECS[kind].model_validate(REQUIRED[kind] | fields)


@pytest.mark.parametrize("kind", SPECS)
def test_every_kind_has_a_name_and_says_which_kind_it_is(kind: str) -> None:
    assert (make(kind).kind, make(kind).name) == (kind, kind)
    assert make(kind, name="other").name == "other"


@pytest.mark.parametrize("kind", SPECS)
def test_specs_are_frozen_and_refuse_unknown_fields(kind: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make(kind).name = "other"
    with pytest.raises(ValidationError, match="Extra inputs"):
        make(kind, colour="red")


@pytest.mark.parametrize("kind", SPECS)
def test_names_and_execution_stay_out_of_the_identity(kind: str) -> None:
    plain = make(kind).identity()
    quick = make(kind, retry_rejects=True, max_reject_share=1, execution={"workers": 3})
    assert quick.identity() == plain
    assert plain["kind"] == kind


@pytest.mark.parametrize("kind", SPECS)
def test_every_field_is_described(kind: str) -> None:
    schema = kind_schema(kind)
    undescribed = [
        name
        for name, field in schema["properties"].items()
        if name != "kind" and "description" not in field and "$ref" not in field
    ]
    # What says all in its name alone.
    assert set(undescribed) <= {"epochs", "preprocess", "augment", "optimizer", "modalities"}


def test_blanks_are_filled_from_earlier_fields() -> None:
    assert IngestSpec(source="s", name="kermany").dataset == "kermany"
    assert IngestSpec(source="s", name="kermany", dataset="other").dataset == "other"
    assert SplitSpec(dataset="kermany").split_name == "kermany-split"
    assert SplitSpec(dataset="kermany", name="given").split_name == "kermany-given"
    assert SplitSpec(dataset="kermany", split_name="mine").split_name == "mine"


def test_what_changes_the_result_is_in_the_identity() -> None:
    assert CleanSpec(dataset="d").identity() != CleanSpec(dataset="d", min_side=5).identity()
    assert (
        ScoreSpec(dataset="d", model="m", batch_size=1).identity()
        == ScoreSpec(dataset="d", model="m", batch_size=64, backend="x").identity()
    )


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 101, "é"])
def test_names_are_safe_in_paths(name: str) -> None:
    with pytest.raises(ValidationError):
        CleanSpec(dataset=name)


@pytest.mark.parametrize(
    ("kind", "path", "allowed"),
    [
        ("clean", ("min_side",), "a whole number >= 0"),
        ("clean", ("max_reject_share",), "a number >= 0 and <= 1"),
        ("clean", ("phash",), "a mapping of max_distance or null"),
        ("clean", ("phash", "max_distance"), "a whole number >= 0 and <= 8"),
        ("train", ("optimizer", "name"), "adamw, adam, sgd"),
        ("train", ("optimizer", "learning_rate"), "a number > 0"),
        ("train", ("classes",), "a list of: text"),
        ("train", ("classes", 2), "text"),
        ("train", ("preprocess", "window"), "a list of 2: a number, a number >= 1 or null"),
        ("train", ("nightly",), "true or false"),
        ("ingest", ("source",), "text, not empty"),
        ("ingest", ("metadata", "columns"), "a mapping of names to text"),
        ("ingest", ("metadata", "columns", "label"), "text"),
        ("evaluate", ("parts", 0), "train, val, test"),
    ],
)
def test_what_a_field_allows_in_words(kind: str, path: tuple[str | int, ...], allowed: str) -> None:
    schema = kind_schema(kind)
    described = schema_at(schema, path)
    assert described is not None
    assert allowed_values(described, schema["$defs"]) == allowed


def test_the_schema_of_a_job_file_holds_every_kind() -> None:
    schema = job_file_schema()
    kinds = [
        one["$ref"].rpartition("/")[2] for one in schema["properties"]["jobs"]["items"]["anyOf"]
    ]
    assert kinds == list(SPECS)
    assert all(schema["$defs"][kind]["required"][0] == "kind" for kind in kinds)
