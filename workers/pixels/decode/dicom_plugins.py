"""Which plug-in decodes a compressed DICOM frame."""

from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason

PLUGINS = ("pyjpegls", "pylibjpeg", "pillow", "pydicom")
"""Plug-ins in the order in which they are tried.

GDCM is left out on purpose: a JPEG-LS frame with a broken precision makes it call `abort`, which
ends the process, and it decodes nothing that the others don't.
"""


def plugins_of(syntax: UID) -> list[str]:
    """The installed plug-ins for a transfer syntax.

    Raises:
        RejectedImage: `UNSUPPORTED_ENCODING` if there is none for a compressed syntax.
    """
    try:
        available = get_decoder(syntax).available_plugins
    except (NotImplementedError, ValueError):
        available = ()
    found = [name for name in PLUGINS if name in available]
    if syntax.is_encapsulated and not found:
        name = syntax.name if not syntax.name[0].isdigit() else str(syntax)
        raise RejectedImage(RejectReason.UNSUPPORTED_ENCODING, f"no decoder for {name}")
    return found


def stored_values(dataset: Dataset, frame: int) -> NDArray[Any]:
    """The stored values of a frame, with YBR turned to RGB; whatever plug-in succeeds first.

    Raises:
        Exception: what the last plug-in raised, if none succeeds.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return pixel_array(dataset, index=frame)
    *others, last = plugins_of(syntax)
    for plugin in others:
        try:
            return pixel_array(dataset, index=frame, decoding_plugin=plugin)
        except Exception:  # noqa: BLE001, S112 - the next one may know this variant
            continue
    return pixel_array(dataset, index=frame, decoding_plugin=last)
