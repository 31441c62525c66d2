"""DICOM: the header, the length of its pixel data, and what it says about the study."""

import io
import zlib
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import parse_fragments
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode.dicom_facts import header_facts
from workers.pixels.decode.dicom_pixels import PixelModule, decode_frame, read_pixel_module
from workers.pixels.decode.dicom_plugins import plugins_of
from workers.pixels.decode.guard import quiet
from workers.pixels.decode.types import FrameFacts, ImageFile, Limits

_FLOAT_KEYWORDS = ("FloatPixelData", "DoubleFloatPixelData")


def open_dicom(data: bytes, limits: Limits) -> ImageFile:
    """Open a DICOM file of any transfer syntax, with or without preamble (PS3.10 7.1).

    Pixels are not decoded here. The pixel data must have the bytes that rows, columns, samples
    and frames ask for, or as many fragments as frames, and a decoder for its transfer syntax
    must be installed.
    """
    _check_deflated(data, limits)
    with quiet():
        dataset = dcmread(io.BytesIO(data), force=True)
        _check_is_dicom(data, dataset)
        if any(keyword in dataset for keyword in _FLOAT_KEYWORDS):
            raise RejectedImage(RejectReason.UNSUPPORTED_PIXELS, "floating-point pixel data")
        if "PixelData" not in dataset:
            raise RejectedImage(RejectReason.NO_PIXELS, _kind_of(dataset))
        _complete_meta(dataset)
        module = read_pixel_module(dataset)
        limits.check_frame(module.rows, module.columns, module.shown_bytes)
        _check_length(dataset, module)
        facts = FrameFacts(module.rows, module.columns, module.shown_bits, module.channels)
        header = header_facts(dataset)
    return ImageFile(
        "dicom",
        (facts,) * module.frames,
        header,
        lambda frame: decode_frame(dataset, module, frame, limits),
    )


def _check_deflated(data: bytes, limits: Limits) -> None:
    """Bound what a deflated data set (PS3.5 A.5) inflates to, because pydicom does not."""
    uid = DeflatedExplicitVRLittleEndian.encode()
    if uid not in data[:2048]:
        return
    # The file meta group begins with its own length (PS3.10 7.1), so the data set's start is
    # known without parsing.
    if data[132:136] != b"\x02\0\0\0":
        raise RejectedImage(RejectReason.UNSUPPORTED_ENCODING, "deflated, without group length")
    start = 144 + int.from_bytes(data[140:144], "little")
    inflater, total, chunk = zlib.decompressobj(-zlib.MAX_WBITS), 0, data[start:]
    while chunk and not inflater.eof:
        total += len(inflater.decompress(chunk, 2**20))
        limits.check_bytes(total, "the inflated data set")
        chunk = inflater.unconsumed_tail
    if not inflater.eof:
        raise RejectedImage(RejectReason.TRUNCATED, "the deflated data set is cut off")


def _check_is_dicom(data: bytes, dataset: Dataset) -> None:
    has_magic = data[128:132] == b"DICM"
    if len(dataset) == 0:
        # pydicom drops all elements when it meets the end of the file within one of them.
        if has_magic:
            raise RejectedImage(RejectReason.TRUNCATED, "no element can be read")
        raise RejectedImage(RejectReason.UNKNOWN_FORMAT, "no DICOM element can be read")
    known = ("SOPClassUID", "Modality", "Rows", "StudyInstanceUID", "PatientID")
    if not has_magic and not any(keyword in dataset for keyword in known):
        raise RejectedImage(RejectReason.UNKNOWN_FORMAT, "no DICOM data set")


def _kind_of(dataset: Dataset) -> str:
    """What an object without pixels is, in words of the standard only."""
    if "DirectoryRecordSequence" in dataset:
        return "a DICOMDIR"
    name = getattr(dataset.get("SOPClassUID"), "name", "")
    return str(name) if name and not name[0].isdigit() else "no pixel data"


def _complete_meta(dataset: Dataset) -> None:
    """Fill in the transfer syntax of a data set that came without one."""
    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        if bytes(dataset.PixelData[:4]) == b"\xfe\xff\x00\xe0":
            detail = "compressed, without a transfer syntax"
            raise RejectedImage(RejectReason.UNSUPPORTED_ENCODING, detail)
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    dataset.file_meta = meta


def _check_length(dataset: Dataset, module: PixelModule) -> None:
    """Check that the pixel data holds all frames and that a decoder is there."""
    syntax = dataset.file_meta.TransferSyntaxUID
    held: Any = dataset.PixelData
    plugins_of(syntax)
    if not syntax.is_encapsulated:
        expected = module.stored_bytes
        if len(held) < expected:
            detail = f"{len(held)} of {expected} bytes of pixel data"
            raise RejectedImage(RejectReason.TRUNCATED, detail)
        return
    items, _ = parse_fragments(held)
    # The first item is the offset table.
    fragments = items - 1
    if fragments < module.frames:
        detail = f"{fragments} fragments for {module.frames} frames"
        raise RejectedImage(RejectReason.TRUNCATED, detail)
