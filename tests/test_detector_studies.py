"""The studies of detectors that ship: every model that is scored and evaluated is made."""

from pathlib import Path

import pytest
import yaml

from schemas.jobfile import JobFile, load
from schemas.specs.evaluate_detector import EvaluateDetectorSpec
from schemas.specs.prepare import PrepareSpec
from schemas.specs.pretrain import PretrainSpec
from schemas.specs.review import ReviewSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.split import SplitSpec
from schemas.specs.train_detector import DetectorSpec

FOLDER = Path(__file__).resolve().parent.parent / "studies"
NAMES = ("liver-ultrasound", "breast-ultrasound")


def opened() -> list[JobFile]:
    files = []
    for name in NAMES:
        path = FOLDER / f"{name}.yaml"
        profiles = [None, *yaml.safe_load(path.read_text())["profiles"]]
        files += [load(path, profile=profile, env={}) for profile in profiles]
    return files


@pytest.mark.parametrize("file", opened(), ids=lambda file: f"{Path(file.path).stem}")
def test_what_is_evaluated_is_trained_and_scored_before(file: JobFile) -> None:
    made: set[str] = set()
    scored: set[str] = set()
    splits: dict[str, str] = {}
    for job in file.jobs:
        match job:
            case SplitSpec():
                splits[job.split_name] = job.dataset
            case PretrainSpec() | DetectorSpec():
                assert splits[job.split] == job.dataset
                assert job.start == "none" or job.start.removeprefix("bundle:") in made
                made.add(job.model)
            case ScoreSpec():
                assert job.model in made
                assert {"val", "test"} <= set(job.parts)
                scored.add(job.model)
            case EvaluateDetectorSpec():
                assert job.model in scored
            case ReviewSpec():
                assert set(job.models) <= scored
            case _:
                pass
    detectors = {job.model for job in file.jobs if isinstance(job, DetectorSpec)}
    evaluated = {job.model for job in file.jobs if isinstance(job, EvaluateDetectorSpec)}
    assert detectors == scored == evaluated


@pytest.mark.parametrize("file", opened(), ids=lambda file: f"{Path(file.path).stem}")
def test_a_study_compares_what_it_says(file: JobFile) -> None:
    detectors = [job for job in file.jobs if isinstance(job, DetectorSpec)]
    assert {"flex", "fix", "stepwise"} <= {job.backbone for job in detectors}
    assert {job.family for job in detectors} == {"centernet", "yolox"}
    assert {job.one_class for job in detectors} == {True, False}
    recipes = {job.preprocess.model_dump_json() for job in detectors}
    assert len(recipes) == 1
    prepared = [job for job in file.jobs if isinstance(job, PrepareSpec)]
    assert {job.preprocess.model_dump_json() for job in prepared} <= recipes
    simsiam = [job for job in file.jobs if isinstance(job, PretrainSpec)]
    assert {job.preprocess.model_dump_json() for job in simsiam} == recipes
