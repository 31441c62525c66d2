"""The recipe in the words of a job file."""

import pytest
from pydantic import ValidationError

from jobs.train.settings import training_config
from schemas.specs.preprocessing import Preprocessing
from schemas.specs.train import TrainSpec
from workers.pixels.steps import Recipe


def recipe(preprocess: Preprocessing) -> Recipe:
    return Recipe.from_dict(preprocess.model_dump(mode="json"))


def test_the_defaults_of_a_job_file_are_those_of_the_recipe() -> None:
    assert recipe(Preprocessing()) == Recipe()
    assert recipe(Preprocessing(decoder="nvjpeg")) == Recipe(decoder="nvjpeg-1")


@pytest.mark.parametrize("step", ["remove_scale_bar", "crop_sector"])
def test_steps_that_only_a_cpu_carries_out_are_refused_for_nvjpeg(step: str) -> None:
    assert getattr(recipe(Preprocessing.model_validate({step: True})), step)
    with pytest.raises(ValidationError, match="set decoder: cpu, or leave remove_scale_bar"):
        Preprocessing.model_validate({step: True, "decoder": "nvjpeg"})


def test_a_training_names_the_version_of_its_decoder() -> None:
    for name, version in (("cpu", "cpu-1"), ("nvjpeg", "nvjpeg-1")):
        spec = TrainSpec(dataset="d", split="s", model="m", preprocess=Preprocessing(decoder=name))
        assert training_config(spec, ("a", "b"))["recipe"]["decoder"] == version
