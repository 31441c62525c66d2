"""The spec of `prepare`: carry out a recipe once, for all who train and score with it."""

from typing import Literal, Self

from pydantic import model_validator

from schemas.specs.base import JobSpec, Name
from schemas.specs.preprocessing import Preprocessing


class PrepareSpec(JobSpec):
    """Prepare the kept images of a data set by one recipe, each image once."""

    kind: Literal["prepare"] = "prepare"
    dataset: Name
    """The data set to prepare."""
    images: Literal["kept", "all"] = "kept"
    """Images that cleaning kept, or all that are catalogued."""
    preprocess: Preprocessing = Preprocessing()
    """The recipe; training and scoring read what was prepared by the same one."""

    @model_validator(mode="after")
    def _gpu_for_its_decoder(self) -> Self:
        if self.preprocess.decoder == "nvjpeg" and not self.execution.gpus_per_worker:
            raise ValueError(
                "preprocess.decoder nvjpeg needs a GPU: set execution.gpus_per_worker to 1, or to "
                "a share of a GPU such as 0.5"
            )
        return self
