"""One decoded frame: what every step after decoding works on."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Pixels:
    """One frame as shown, before windowing.

    Upright (EXIF applied), palette expanded, CMYK and YBR converted to RGB, alpha composed on
    black. CT is rescaled to Hounsfield units.
    """

    array: NDArray[Any]
    """(H, W) or (H, W, 3 RGB); uint8, uint16, int16, or float32."""
    bits: int
    """Significant bits as stored (DICOM BitsStored)."""
    window: tuple[float, float] | None
    """Centre and width in units of `array` (DICOM C.11.2.1.2), None where none is given."""
    inverted: bool
    """MONOCHROME1: the lowest value is white, so the view inverts after windowing."""
    spacing_mm: tuple[float, float] | None
    """Row and column spacing in millimetres, None where unknown."""

    @property
    def height(self) -> int:
        """Rows of the frame."""
        return int(self.array.shape[0])

    @property
    def width(self) -> int:
        """Columns of the frame."""
        return int(self.array.shape[1])
