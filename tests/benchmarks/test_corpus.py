"""The corpus and the night of the benchmarks are those that the job kinds make."""

import os
from pathlib import Path

from benchmarks.cleaning import clean_job
from benchmarks.corpus import JobFileRun
from benchmarks.night import tomorrow
from jobs.clean import thresholds
from jobs.phantoms import corpus_of
from schemas.specs.clean import CleanSpec
from schemas.specs.phantoms import PhantomsSpec
from workers.phantoms.corpus import Corpus


def test_what_a_job_file_is_run_with_stays_with_it(tmp_path: Path) -> None:
    before = dict(os.environ)
    first, second = JobFileRun(tmp_path / "a", 300), JobFileRun(tmp_path / "b", 40)
    assert (first.spec.count, first.spec.target) == (300, str(tmp_path / "a" / "corpus"))
    assert (second.spec.count, second.spec.target) == (40, str(tmp_path / "b" / "corpus"))
    assert dict(os.environ) == before


def test_what_arrives_overnight_is_of_the_same_corpus(tmp_path: Path) -> None:
    spec = PhantomsSpec.model_validate({"target": str(tmp_path), "count": 12, "size": 32})
    grown = Corpus(**corpus_of(spec) | {"count": 14})
    for index in range(12):
        for file in grown.render(index).files:
            path = tmp_path / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)
    night = tomorrow(tmp_path, spec, new=2, changed=1)
    assert [one.read_bytes() for one in night.new] == [
        grown.render(index).files[0].data for index in (12, 13)
    ]
    assert len(night.changed) == 1


def test_the_loop_beside_clean_judges_by_the_same_limits() -> None:
    spec = CleanSpec.model_validate(clean_job(128))
    assert thresholds(spec) == thresholds(CleanSpec(dataset="any"))
