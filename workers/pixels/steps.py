"""The recipe that makes an image ready for a model, as values; `recipe` carries it out.

Light to import: planning and model bundles name recipes without loading what decodes pixels.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from schemas.errors import RunError
from schemas.plan import fingerprint

DECODER = "cpu-1"
"""What decodes and resizes, with a version that changes when any file comes out otherwise."""
NVJPEG_DECODER = "nvjpeg-1"
"""JPEG decoded by nvJPEG and everything resized on a GPU; `workers.device_preparer`."""

DECODERS: Mapping[str, str] = MappingProxyType({"cpu": DECODER, "nvjpeg": NVJPEG_DECODER})
"""What a job file calls the decoders, and their versions of today."""

RESIZE_MODES = ("letterbox", "stretch")


@dataclass(frozen=True)
class Recipe:
    """The steps from a decoded frame to a model's input; equal recipes give equal pixels.

    In order: window and invert (8 bit), remove scale bars, crop to the sector, grey or colour,
    resize. Raises ValueError for a value no step can carry out.
    """

    size: int = 224
    """Side of the square output in pixels."""
    channels: int = 1
    """1 for grey, 3 for RGB."""
    resize: str = "letterbox"
    """`letterbox` keeps the aspect ratio and pads with black, `stretch` does not."""
    remove_scale_bar: bool = False
    """Paint blue and yellow scale bars over."""
    crop_sector: bool = False
    """Crop to the bounding box of the ultrasound sector, where one is found."""
    window: tuple[float, float] | None = None
    """Centre and width instead of the file's own, for grey frames; CT: Hounsfield units."""
    decoder: str = DECODER
    """What decodes and resizes: pixels of different decoders are never taken for each other."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"recipe: size must be at least 1: got {self.size}")
        if self.channels not in {1, 3}:
            raise ValueError(f"recipe: channels must be 1 or 3: got {self.channels}")
        if self.resize not in RESIZE_MODES:
            raise ValueError(
                f"recipe: resize must be {' or '.join(RESIZE_MODES)}: got {self.resize}"
            )
        if self.window is not None and self.window[1] <= 0:
            raise ValueError(f"recipe: the window's width must be positive: got {self.window[1]}")
        if self.decoder not in DECODERS.values():
            known = " or ".join(DECODERS.values())
            raise ValueError(f"recipe: this version decodes as {known}: got {self.decoder}")
        if self.decoder == NVJPEG_DECODER and (self.remove_scale_bar or self.crop_sector):
            raise ValueError(
                "recipe: nvjpeg can't remove scale bars or crop to the sector: use decoder cpu"
            )

    @property
    def hash(self) -> str:
        """The recipe's identity: 16 hex digits."""
        return fingerprint(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        values = asdict(self)
        values["window"] = None if self.window is None else [float(one) for one in self.window]
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Recipe":
        """Read what `to_dict` wrote; a field left out takes its default.

        A decoder named as in a job file, without a version, is this version's.

        Raises ValueError for an unknown field, naming those that are known.
        """
        known = [one.name for one in fields(Recipe)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(
                f"recipe: unknown field {', '.join(unknown)}; known: {', '.join(known)}"
            )
        found = dict(values)
        window = found.get("window")
        if window is not None:
            centre, width = window
            found["window"] = (float(centre), float(width))
        if "decoder" in found:
            found["decoder"] = DECODERS.get(found["decoder"], found["decoder"])
        return Recipe(**found)


def require_cpu(recipe: Recipe) -> None:
    """Make sure that a CPU decodes what this recipe asks for.

    Raises:
        RunError: if the recipe's pixels come from a GPU; others would be wrong ones.
    """
    if recipe.decoder != DECODER:
        raise RunError(
            "The pixels of this recipe are made on a GPU only, and these images have none yet",
            where=f"recipe {recipe.hash}",
            got=f"decoder {recipe.decoder}",
            remedy="prepare them first on a GPU (kind prepare), or set preprocess.decoder: cpu",
        )
