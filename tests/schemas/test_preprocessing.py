"""The recipe in the words of a job file."""

import math

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


@pytest.mark.parametrize(
    "window",
    [(40, 0), (40, -5), (40, 0.9), (40, math.nan), (40, math.inf), (math.nan, 80), (-math.inf, 80)],
)
def test_a_window_without_width_is_refused(window: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1|finite number"):
        Preprocessing(window=window)


@pytest.mark.parametrize("window", [(40, 1), (-600, 1500), (0.5, 1.0)])
def test_a_window_is_centre_and_width(window: tuple[float, float]) -> None:
    assert recipe(Preprocessing(window=window)).window == window


def test_a_training_names_the_version_of_its_decoder() -> None:
    for name, version in (("cpu", "cpu-1"), ("nvjpeg", "nvjpeg-1")):
        spec = TrainSpec(dataset="d", split="s", model="m", preprocess=Preprocessing(decoder=name))
        assert training_config(spec, ("a", "b"))["recipe"]["decoder"] == version
