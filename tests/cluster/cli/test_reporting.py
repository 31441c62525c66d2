"""`rayward report`, and the tables below a study's report."""

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.lake.store import LakeStore
from schemas.plan import Counts, Plan, ShardResult
from schemas.protocols import Report
from schemas.specs.evaluate import EvaluateSpec
from schemas.tables import rows_of
from tests.cluster.cli.conftest import Call, FakeRunner
from tests.jobs.seeding import seed

FILE = """\
lake: ./lake
jobs:
  - {kind: clean, dataset: d}
  - kind: study
    name: nets
    train: {dataset: d, split: p}
    grid: {seed: [0, 1]}
    tables:
      - {name: Seeds, rows: [seed], metrics: {AUC: auc}}
      - {name: All, rows: [metric], columns: [seed], metrics: {AUC: auc, Errors: nll}}
  - kind: study
    name: other
    train: {dataset: d, split: p}
"""


def evaluated(store: LakeStore, figures: list[dict[str, Any]]) -> None:
    """Publish figures of the trial seed=0, as its evaluation does."""
    job = EvaluateSpec(dataset="d", split="p", model="nets-seed0", study="nets", trial="seed=0")
    inputs = pa.table({"image_id": ["one"]})
    plan = Plan(job.kind, job.name, (job.kind,), {}, {}, inputs, bounds=(0, 1))
    with store.lease(plan.key):
        run = store.begin(plan, job.model_dump(mode="json"))
        found = ShardResult({"metrics": rows_of("metrics", figures)}, done=1, rejected=0)
        run.record(run.pending()[0], found)
        store.commit(run, {})


@pytest.fixture
def studies(tmp_path: Path) -> str:
    (tmp_path / "study.yaml").write_text(FILE)
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    row = {"study": "nets", "trial": "seed=0", "part": "test", "subgroup": "", "model_id": "m"}
    figures = [{"metric": "auc", "value": 0.9}, {"metric": "nll", "value": 0.4}]
    seed(
        store,
        {"models": [{"model_id": "m", "name": "nets-seed0", "version": 1, "metrics": "{}"}]},
    )
    evaluated(store, [row | one | {"ci_low": 0.8, "ci_high": 0.95} for one in figures])
    return str(tmp_path / "study.yaml")


def test_a_file_s_tables_are_printed_with_their_gaps(call: Call, studies: str) -> None:
    ended = call("report", studies)
    assert (ended.code, ended.err) == (0, "")
    lines = [line.rstrip() for line in ended.out.splitlines()]
    assert lines[0] == "Seeds"
    assert lines[3].split() == ["0", "0.900", "[0.800,", "0.950]"]
    assert lines[4].split() == ["1", "-"]
    assert "No figures of 1 of 2: seed=1." in lines
    assert "The test part of p: looked at by 1 evaluations, 1 of them of nets." in lines


def test_formats_are_csv_and_markdown_too(call: Call, studies: str) -> None:
    ended = call("report", studies, "--format", "csv", "--only", "nets")
    seeds, both = ended.out.split("\n\n")
    rows = list(csv.DictReader(io.StringIO(seeds)))
    assert [(row["seed"], row["AUC"], row["AUC high"]) for row in rows] == [
        ("0", "0.9", "0.95"),
        ("1", "", ""),
    ]
    assert both.splitlines()[0].startswith("table,metric,0,0 low")
    assert "No figures of 1 of 2: seed=1." in ended.err
    ended = call("report", studies, "-f", "markdown", "--only", "nets")
    assert "| 0 | 0.900 [0.800, 0.950] |" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "html"), "no such format (--format): got html. Use one of table, csv"),
        (("--only", "clean"), "no such study (study.yaml): got clean. Its studies: nets, other"),
        (("--set", "nets.train.epochs=x"), "jobs.nets.train.epochs: has the wrong type; got x"),
    ],
)
def test_a_wrong_command_says_what_is_right(
    call: Call, studies: str, arguments: tuple[str, ...], said: str
) -> None:
    ended = call("report", Path(studies).name, *arguments)
    assert ended.code == 2
    assert said in ended.err


def test_a_file_without_studies_and_a_lake_that_is_not_there(call: Call, job_file: str) -> None:
    assert "has no study" in call("report", job_file).err
    Path("study.yaml").write_text(FILE)
    ended = call("report", "study.yaml", "--lake", "./nowhere")
    assert (ended.code, "There is no lake (./nowhere)" in ended.err) == (1, True)


def test_a_run_shows_the_tables_and_what_failed(
    call: Call, runner: FakeRunner, studies: str
) -> None:
    report = Report(
        "study", "nets", "failed", counts=Counts(done=1, rejected=1), unit="trials",
        seconds={"trials": 3.0}, failures={"seed=1": "No such bundle."},
    )  # fmt: skip
    runner.reports, runner.code = [report], 1
    ended = call("run", studies)
    assert ended.code == 1
    assert ended.out.startswith(
        "nets (study): failed in 3.0 s\n  2 trials: 1 done, 1 failed\n"
        "  failed: seed=1: No such bundle.\n"
    )
    assert "Seeds\n" in ended.out and "above max_reject_share" not in ended.out
    ended = call("run", studies, "--json")
    assert len(ended.out.splitlines()) == 1
    assert "nets: seed=1 failed: No such bundle." in ended.err
