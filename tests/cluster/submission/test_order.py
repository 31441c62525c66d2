"""Orders: a job file as it travels."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from cluster.submission.order import PATH_FIELDS, Order, local_paths, settle_paths
from schemas.errors import UsageError
from schemas.jobfile import JobFile, load
from schemas.specs import SPECS

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
    says_path = re.compile(r"(directory|folder|file|path)\b(?! of the split)", re.IGNORECASE)
    found = {
        (kind, *place)
        for kind, spec in SPECS.items()
        for place, said in described(spec)
        if says_path.match(said)
    }
    known = {(kind, *place) for kind, places in PATH_FIELDS.items() for place in places}
    assert found <= known, "add them to PATH_FIELDS of cluster/submission/order.py"
    assert ("ingest", "source") in found
    assert ("ingest", "metadata", "file") in found


def described(spec: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each field by its place, with what is said of it; those of nested models too."""
    for name, field in spec.model_fields.items():
        yield (name,), field.description or ""
        for one in (field.annotation, *get_args(field.annotation)):
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from (((name, *place), said) for place, said in described(one))
