"""A study as a user runs it: trials side by side, one that fails, a kill half-way, tables."""

import csv
import io
import json
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.whole.conftest import Place

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

STUDY = """
lake: ${LAKE:-./lake}
jobs:
  - kind: study
    name: nets
    train:
      dataset: chest
      split: chest-safe
      preprocess: {size: 32}
      epochs: 1
      batch_size: 16
    grid:
      net:
        good: {architecture: resnet10t}
        bad: {architecture: no_such_network}
      seed: [0, 1]
    heads: [network, svm]
    evaluate: {bootstrap: 20}
    tables:
      - name: Nets
        rows: [net]
        columns: [head, metric]
profiles:
  good: {jobs: {nets: {only: {net: [good]}}}}
  together: {jobs: {nets: {only: {net: [good], seed: [0]}, train: {world_size: 2}}}}
"""


CORPUS = """
lake: ${LAKE:-./lake}
jobs:
  - kind: phantoms
    target: ./phantoms
    count: 150
    size: 96
    modalities: {us: 0, xray: 1}
    seed: 3
  - kind: ingest
    name: chest
    source: ./phantoms/images
    metadata: {file: ./phantoms/metadata.csv}
  - {kind: clean, dataset: chest}
  - {kind: split, name: safe, dataset: chest, max_group_share: 0.2}
  - {kind: prepare, dataset: chest, preprocess: {size: 32}}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Prepared images and a split of them."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "corpus.yaml").write_text(CORPUS)
    (folder / "study.yaml").write_text(STUDY)
    place = Place(folder, folder / "lake")
    place.run("corpus.yaml")
    return place


@pytest.fixture
def place(corpus: Place, tmp_path: Path) -> Place:
    """A lake of the test's own."""
    return corpus.with_lake(tmp_path / "lake")


def runs(place: Place) -> dict[str, int]:
    """Runs of the study's trials by kind and name."""
    rows = place.query(
        "SELECT kind || ' ' || name AS what, count(*) AS n FROM runs "
        "WHERE name LIKE 'nets-%' AND state = 'published' GROUP BY 1"
    )
    return {row["what"]: row["n"] for row in rows}


def test_one_failing_setting_leaves_the_others_and_is_named(place: Place) -> None:
    ended = place.call("run", "study.yaml", code=1)
    assert "4 trials: 2 done, 2 failed" in ended.stdout
    assert "failed: net=bad, seed=0: timm knows no such architecture" in ended.stdout
    (good,) = [line for line in ended.stdout.splitlines() if line.startswith("good")]
    assert good.count("[") == 4  # two heads, two figures, intervals over two seeds
    assert "No figures of 4 of 8: net=bad, seed=0; net=bad, seed=0, head=svm;" in ended.stdout
    assert "The test part of chest-safe: looked at by 4 evaluations, 4 of them of nets." in (
        ended.stdout
    )
    made = runs(place)
    assert set(made.values()) == {1}
    assert {name.split()[0] for name in made} == {"train", "score", "embed", "evaluate"}

    # Again: only what failed is tried again, and stdout holds one JSON object.
    ended = place.call("run", "study.yaml", "--json", code=1)
    report = json.loads(ended.stdout)
    assert (report["status"], report["run_id"]) == ("failed", None)
    counts = {name: count for name, count in report["counts"].items() if count}
    assert counts == {"input": 4, "up_to_date": 2, "rejected": 2}
    assert "nets: net=bad, seed=1 failed: timm knows no such architecture" in ended.stderr
    assert runs(place) == made

    (report,) = place.run("study.yaml", "--profile", "good")
    assert report["status"] == "up_to_date"
    plan = place.call("plan", "study.yaml").stdout
    assert "would work on 2 trials" in plan
    assert "2 to do, 2 up to date" in plan

    table = place.call("report", "study.yaml", "--format", "csv")
    rows = {row["net"]: row for row in csv.DictReader(io.StringIO(table.stdout))}
    assert rows["bad"]["svm AUC"] == ""
    figures = place.query(
        "SELECT avg(value) AS auc FROM metrics WHERE study = 'nets' AND metric = 'auc' "
        "AND part = 'test' AND category IS NULL AND trial LIKE '%head=svm'"
    )
    assert float(rows["good"]["svm AUC"]) == pytest.approx(figures[0]["auc"], abs=1e-6)
    shown = place.call("report", "study.yaml", "--format", "markdown", "--set",
                       "nets.train.epochs=2").stdout  # fmt: skip
    assert "| net | network Accuracy | network AUC | svm Accuracy | svm AUC |" in shown
    assert "Settings differ from the file's in 2 trials: net=good, seed=0; net=good, seed=1." in (
        shown
    )


def test_a_killed_study_redoes_only_unfinished_trials(place: Place) -> None:
    process = place.start("run", "study.yaml", "--profile", "good", "--set",
                          "nets.trials_at_once=1")  # fmt: skip
    deadline = time.monotonic() + 300
    while "evaluate nets-good-seed0-svm" not in runs(place):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    before = runs(place)
    assert not any(name.startswith("evaluate") and "seed1" in name for name in before)
    (report,) = place.run("study.yaml", "--profile", "good")
    counts = {name: count for name, count in report["counts"].items() if count}
    assert counts == {"input": 2, "done": 1, "up_to_date": 1}
    after = runs(place)
    assert len(after) == 14
    assert set(after.values()) == {1}, "a finished job was done twice"
    assert before.items() <= after.items()
    (report,) = place.run("study.yaml", "--profile", "good")
    assert report["status"] == "up_to_date"


def test_trials_may_train_in_several_processes(place: Place) -> None:
    (report,) = place.run("study.yaml", "--profile", "together")
    assert (report["status"], report["counts"]["done"]) == ("published", 1)
    assert len(runs(place)) == 7

    # The machine against the network of the same trial, on the images both have scored.
    against = ("--profile", "together", "--set", "nets.against={head: network}")
    assert "1 to do" in place.call("plan", "study.yaml", *against).stdout
    (report,) = place.run("study.yaml", *against)
    counts = {name: count for name, count in report["counts"].items() if count}
    assert (report["status"], counts) == ("published", {"input": 1, "done": 1})
    rows = place.query("SELECT trial, category, value FROM metrics WHERE metric = 'mcnemar_p'")
    assert {row["trial"] for row in rows} == {"net=good, seed=0, head=svm"}
    assert all(row["category"].startswith("nets-good-seed0@1") for row in rows)
    assert all(0 <= row["value"] <= 1 for row in rows)
    table = "nets.tables=[{name: P, rows: [head], metrics: {p: mcnemar_p, Accuracy: accuracy}}]"
    shown = place.call("report", "study.yaml", *against, "--set", table).stdout
    assert f"{rows[0]['value']:.3f}" in shown
    assert "p-values (delong_p, mcnemar_p) are of paired tests against head=network" in shown
    (report,) = place.run("study.yaml", *against)
    assert report["status"] == "up_to_date"
