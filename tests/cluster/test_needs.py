"""What a job of a file waits for: what its spec names, and no more than the last that matter."""

from pathlib import Path

import pytest

from cluster.needs import direct_needs
from schemas.jobfile import load
from schemas.specs import JobSpec

STUDIES = Path(__file__).resolve().parents[2] / "studies"


def needs_of(file: str) -> dict[str, list[str]]:
    jobs = load(STUDIES / file, env={}).jobs
    return {
        one.name: [need.name for need in direct_needs(one, jobs[:place])]
        for place, one in enumerate(jobs)
    }


def test_each_job_of_a_study_of_detectors() -> None:
    needs = needs_of("breast-ultrasound.yaml")
    assert needs["busi"] == []
    assert needs["masks"] == needs["clean"] == ["busi"]
    assert needs["split"] == needs["profile"] == ["clean"]
    assert needs["centernet"] == ["masks", "split"]
    # The backbone was learned on the split, so the split is not named beside it.
    assert needs["fix"] == needs["stepwise"] == ["masks", "pretrain"]
    assert needs["score-fix"] == ["fix"]
    assert needs["eval-fix"] == ["score-fix"]


def test_pixels_matter_to_who_reads_them() -> None:
    needs = needs_of("demo.yaml")
    assert needs["demo"] == ["phantoms"]
    assert needs["split"] == ["clean"]
    assert needs["train"] == ["prepare", "split"]
    assert needs["score"] == ["train"]
    assert needs["evaluate"] == ["score"]


def test_a_name_that_is_set_apart_from_the_jobs_is_the_one_that_counts() -> None:
    needs = needs_of("nightly.yaml")
    assert needs["arrivals"] == []
    assert all(one != [] for name, one in needs.items() if name != "arrivals")


@pytest.mark.parametrize(
    ("nightly", "expected"), [(True, ["train"]), (False, ["clean"])], ids=["marked", "not marked"]
)
def test_a_night_waits_for_bundles_that_are_to_be_marked(
    tmp_path: Path, nightly: bool, expected: list[str]
) -> None:
    file = tmp_path / "jobs.yaml"
    mark = str(nightly).lower()
    file.write_text(
        f"""
lake: ./lake
jobs:
  - {{kind: clean, dataset: chest}}
  - {{kind: split, name: safe, dataset: chest}}
  - {{kind: train, dataset: chest, split: chest-safe, model: lungs, nightly: {mark}}}
  - {{kind: score, dataset: chest, model: nightly}}
"""
    )
    jobs: tuple[JobSpec, ...] = load(file, env={}).jobs
    assert [one.name for one in direct_needs(jobs[-1], jobs[:-1])] == expected
