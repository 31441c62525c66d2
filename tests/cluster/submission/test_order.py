"""Orders: a job file as it travels."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from cluster.submission.order import PATH_FIELDS, STUDY_PARTS, Order, local_paths, settle_paths
from schemas.errors import UsageError
from schemas.jobfile import JobFile, load
from schemas.specs import SPECS
from schemas.specs.nested import FieldsOf
from schemas.specs.study import StudySpec

STUDIES = Path(__file__).resolve().parents[3] / "studies"


def write(folder: Path, text: str) -> str:
    path = folder / "job.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_order_comes_back_as_it_went(path: Path) -> None:
    job_file = load(path, env={"DATA": "/data", "LAKE": "/lake"})
    order = Order("night-20261121-a1", job_file, ("demo",), date(2026, 11, 21))
    assert Order.from_bytes(order.to_bytes()) == order
    assert [one.identity() for one in Order.from_bytes(order.to_bytes()).job_file.jobs] == [
        one.identity() for one in job_file.jobs
    ]


JOBS = """
lake: LAKE
jobs:
  - {kind: phantoms, target: ./made, count: 5}
  - {kind: ingest, name: a, source: ../archive, metadata: {file: tables/meta.csv, key: k}}
  - {kind: ingest, name: b, source: 's3://bucket/x', metadata: {file: /abs/meta.csv}}
  - {kind: train, dataset: a, split: s, model: m, start: START}
"""


def settled(tmp_path: Path, lake: str = "./lake", start: str = "none") -> JobFile:
    text = JOBS.replace("LAKE", lake).replace("START", start)
    job_file = load(write(tmp_path, text))
    root = Path("/home/me/work")
    return settle_paths(
        job_file, root / "studies", root, ["studies/tables/meta.csv", "w.safetensors"]
    )


def test_what_is_packed_stays_relative_and_the_rest_becomes_absolute(tmp_path: Path) -> None:
    job_file = settled(tmp_path)
    values = [job.model_dump() for job in job_file.jobs]
    assert job_file.lake == "/home/me/work/studies/lake"
    assert values[0]["target"] == "/home/me/work/studies/made"
    assert values[1]["source"] == "/home/me/work/archive"
    # Relative to the working directory, where the cluster starts the driver.
    assert values[1]["metadata"]["file"] == "studies/tables/meta.csv"
    assert values[1]["metadata"]["key"] == "k"
    assert values[2]["source"] == "s3://bucket/x"
    assert values[2]["metadata"]["file"] == "/abs/meta.csv"
    assert settled(tmp_path, lake="s3://bucket/lake").lake == "s3://bucket/lake"


@pytest.mark.parametrize(
    ("start", "there"),
    [
        ("none", "none"),
        ("pretrained", "pretrained"),
        ("'bundle:m@2'", "bundle:m@2"),
        ("../w.safetensors", "w.safetensors"),
        ("/weights/w.safetensors", "/weights/w.safetensors"),
    ],
)
def test_a_start_is_a_path_only_if_it_is_one(tmp_path: Path, start: str, there: str) -> None:
    assert settled(tmp_path, start=start).jobs[3].model_dump()["start"] == there


STUDY = """
lake: x
jobs:
  - kind: study
    name: s
    train: {dataset: a, split: s, start: w.safetensors}
    grid:
      start: [none, OTHER, 'bundle:m@2']
      size: {small: {epochs: 1}, own: {start: w.safetensors}}
    only: {start: [OTHER]}
  - {kind: train_detector, dataset: a, split: s, annotations: x, model: d, start: ../w.safetensors}
  - {kind: explain, dataset: a, split: s, model: d, regions: ../masks}
"""


def test_paths_in_a_study_are_settled_and_its_labels_stay(tmp_path: Path) -> None:
    job_file = load(write(tmp_path, STUDY.replace("OTHER", "/mnt/other.safetensors")))
    root = Path("/home/me/work")
    settled = settle_paths(job_file, root / "here", root, ["here/w.safetensors", "w.safetensors"])
    before, study = job_file.jobs[0], settled.jobs[0]
    assert isinstance(before, StudySpec)
    assert isinstance(study, StudySpec)
    assert study.train["start"] == "here/w.safetensors"
    starts = [point.fields["start"] for point in study.all_points]
    assert set(starts) == {
        "none", "/mnt/other.safetensors", "bundle:m@2", "here/w.safetensors",
    }  # fmt: skip
    assert [one.labels for one in study.all_points] == [one.labels for one in before.all_points]
    assert (study.bundles, study.axes) == (before.bundles, before.axes)
    assert settled.jobs[1].model_dump()["start"] == "w.safetensors"
    assert settled.jobs[2].model_dump()["regions"] == "/home/me/work/masks"
    assert local_paths(job_file.jobs) == [
        "w.safetensors", "/mnt/other.safetensors", "../w.safetensors", "../masks",
    ]  # fmt: skip
    order = Order("a", settled)
    assert Order.from_bytes(order.to_bytes()).fingerprint == order.fingerprint


def test_a_path_that_names_trials_is_refused_where_it_would_change(tmp_path: Path) -> None:
    job_file = load(write(tmp_path, STUDY.replace("OTHER", "../other.safetensors")))
    root = Path("/home/me/work")
    with pytest.raises(UsageError, match=r"names trials.*grid\.start.*\.\./other") as refused:
        settle_paths(job_file, root / "here", root, [])
    assert "{LABEL: {start: PATH}}" in str(refused.value)


def test_local_paths_are_those_the_jobs_name(tmp_path: Path) -> None:
    job_file = load(write(tmp_path, JOBS.replace("LAKE", "x").replace("START", "none")))
    assert local_paths(job_file.jobs) == [
        "./made",
        "../archive",
        "tables/meta.csv",
        "/abs/meta.csv",
    ]


def test_the_fingerprint_tells_orders_apart(tmp_path: Path) -> None:
    one = load(write(tmp_path, JOBS.replace("LAKE", "x").replace("START", "none")))
    other = load(write(tmp_path, JOBS.replace("LAKE", "y").replace("START", "none")))
    same = {Order("a-20261121-a1", one).fingerprint, Order("a-20261121-a2", one).fingerprint}
    assert len(same) == 1
    assert not same & {Order("", other).fingerprint, Order("", one, ("a",)).fingerprint}


def test_a_secret_does_not_travel(tmp_path: Path) -> None:
    job_file = load(write(tmp_path, "lake: x\njobs:\n  - {kind: ingest, name: a, source: y}\n"))
    leaky = JobFile("s3://AKIAABCDEFGHIJKLMNOP:secret@bucket", job_file.jobs, job_file.path)
    with pytest.raises(UsageError, match="holds a secret") as refused:
        Order("a", leaky).to_bytes()
    assert "AKIA" not in str(refused.value)


def test_every_field_that_says_path_is_known() -> None:
    """A kind whose fields are described as paths must stand in `PATH_FIELDS`."""
    says_path = re.compile(
        r"(a )?(directory|folder)\b|path or uri\b|.*\bthe path of a\b", re.IGNORECASE | re.DOTALL
    )
    found = {
        (kind, *place)
        for kind, spec in SPECS.items()
        for place, said in described(spec)
        if says_path.match(said)
    }
    known = {(kind, *place) for kind, places in PATH_FIELDS.items() for place in places}
    assert found == known, "add them to PATH_FIELDS of cluster/submission/order.py"
    parts = {
        name
        for name, field in StudySpec.model_fields.items()
        if any(isinstance(one, FieldsOf) for one in field.metadata)
    }
    assert parts == set(STUDY_PARTS) <= set(SPECS)


def described(spec: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each field by its place, with what is said of it; those of nested models too."""
    for name, field in spec.model_fields.items():
        yield (name,), field.description or ""
        for one in (field.annotation, *get_args(field.annotation)):
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from (((name, *place), said) for place, said in described(one))
