"""The part of a spec that says how an image becomes a model's input."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.specs.base import Spec

Centre = Annotated[float, Field(allow_inf_nan=False)]
Width = Annotated[float, Field(ge=1, allow_inf_nan=False)]
"""Of a grey window; DICOM knows none narrower than 1 (PS3.3 C.11.2.1.2)."""


class Preprocessing(Spec):
    """The recipe that turns an image of any kind into a model's input."""

    size: int = Field(default=224, ge=16, le=2048)
    """Side of the square input in pixels."""
    channels: Literal[1, 3] = 1
    """Grey or colour."""
    resize: Literal["letterbox", "stretch"] = "letterbox"
    """Keep the aspect ratio and pad, or stretch."""
    remove_scale_bar: bool = False
    """Paint coloured scale bars over."""
    crop_sector: bool = False
    """Crop to the ultrasound sector."""
    window: tuple[Centre, Width] | None = None
    """Centre and width (1 or more) of the grey window; the file's own, or its full range, when not
    given."""
    decoder: Literal["cpu", "nvjpeg"] = "cpu"
    """What decodes and resizes. `nvjpeg` does both on a GPU, for `prepare` only; its pixels differ
    by a few grey levels, so they count as another recipe."""

    @model_validator(mode="after")
    def _steps_of_the_decoder(self) -> Self:
        if self.decoder == "nvjpeg" and (self.remove_scale_bar or self.crop_sector):
            raise ValueError(
                "nvjpeg can't remove scale bars or crop to the sector: set decoder: cpu, or leave "
                "remove_scale_bar and crop_sector out"
            )
        return self
