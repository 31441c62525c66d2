"""The profile smoke of each study, from an empty folder to its tables."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.jobfile import load
from schemas.specs.study import StudySpec
from schemas.studies import trials_of

RAYWARD = Path(sys.executable).with_name("rayward")
STUDIES = Path(__file__).resolve().parents[3] / "studies"

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]


def run(file: Path, folder: Path) -> list[dict[str, Any]]:
    ended = subprocess.run(
        [RAYWARD, "run", file, "--profile", "smoke", "--json"],
        cwd=folder,
        env={**os.environ, "RAYWARD_KEY_FILE": str(folder / "pseudonym.key")},
        check=False,
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("name", ["ct-nodule", "hand-severity", "pneumoconiosis-transfer"])
def test_a_study_makes_its_tables_and_does_nothing_twice(name: str, tmp_path: Path) -> None:
    file = STUDIES / f"{name}.yaml"
    studies = {
        job.name: len(trials_of(job))
        for job in load(file, profile="smoke", env={}).jobs
        if isinstance(job, StudySpec)
    }
    first = {report["name"]: report for report in run(file, tmp_path)}
    for study, trials in studies.items():
        assert (first[study]["status"], first[study]["counts"]["done"]) == ("published", trials)
    again = run(file, tmp_path)
    assert {report["status"] for report in again} == {"up_to_date"}
    counts = {report["name"]: report["counts"]["up_to_date"] for report in again}
    assert {study: counts[study] for study in studies} == studies
