"""Tells a file's format by its content; names and extensions are never asked."""

from typing import Literal

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason

READ = ("png", "jpeg", "tiff", "bmp", "webp", "npz", "dicom")
"""The formats that are decoded."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"PK\x03\x04", "npz"),
    (b"PK\x05\x06", "npz"),
)
_OTHERS = (
    (b"GIF8", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"\x1f\x8b", "gzip"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"SIMPLE  =", "FITS"),
    (b"\x89HDF", "HDF5"),
    (b"\x80\x04\x95", "pickle"),
    (b"\x93NUMPY", "npy"),
)
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_DICOM_GROUPS = (0x0002, 0x0004, 0x0008)


def sniff(data: bytes) -> str:
    """Name the format of ``data``, one of `READ`.

    Raises:
        RejectedImage: `EMPTY_FILE`, or `UNKNOWN_FORMAT` with the format's name where known.
    """
    if not data:
        raise RejectedImage(RejectReason.EMPTY_FILE)
    if data[128:132] == b"DICM":
        # First, because the preamble may begin like a TIFF file (PS3.10 7.1).
        return "dicom"
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    if _begins_like_dicom(data):
        return "dicom"
    for signature, name in _OTHERS:
        if data.startswith(signature):
            raise RejectedImage(RejectReason.UNKNOWN_FORMAT, f"{name} is not read")
    if data[4:8] == b"ftyp":
        raise RejectedImage(RejectReason.UNKNOWN_FORMAT, "AVIF, HEIF and videos are not read")
    raise RejectedImage(RejectReason.UNKNOWN_FORMAT, f"none of {', '.join(READ)}")


def _begins_like_dicom(data: bytes) -> bool:
    """Whether a data set without preamble may begin here (as before DICOM 3, PS3.5 7.1).

    That is a low even group with a small element and either a VR in capitals or a length that
    lies within the file.
    """
    if len(data) < 16:
        return False
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        group = int.from_bytes(data[0:2], order)
        element = int.from_bytes(data[2:4], order)
        if group in _DICOM_GROUPS and element <= 0x0100:
            length = int.from_bytes(data[4:8], order)
            return (data[4:6].isalpha() and data[4:6].isupper()) or length < len(data)
    return False
