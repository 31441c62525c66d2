"""`rayward report` of a file that evaluates detectors."""

from pathlib import Path

from cluster.cli.detector_tables import evaluations_of
from schemas.jobfile import load
from tests.cluster.cli.conftest import Call
from tests.jobs.report.evaluated_detector import open_evaluated


def test_the_tables_of_the_jobs_that_are_asked_for(tmp_path: Path, call: Call) -> None:
    store = open_evaluated(str(tmp_path / "lake"))
    file = tmp_path / "study.yaml"
    job = "{kind: evaluate_detector, dataset: d, split: s, annotations: a, parts: [test]"
    file.write_text(
        f"lake: {store.root}\njobs:\n  - {job}, name: flex, model: flex, study: liver}}\n"
        f"  - {job}, name: other, model: flex, study: other}}\n"
    )
    ended = call("report", str(file))
    assert ended.code == 0
    assert "0.344" in ended.out
    assert "No figures of 1 of 2: flex." in ended.out
    assert "2791" in call("report", str(file), "--only", "flex", "--format", "markdown").out
    assert "2791" not in call("report", str(file), "--only", "other", "--format", "csv").out
    assert call("report", str(file), "--only", "nobody").code == 2
    assert [job.name for job in evaluations_of(load(file), ())] == ["flex", "other"]
