"""Phantoms as files: JPEG, 8- and 16-bit PNG, and DICOM."""

import hashlib
import io
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
)

from workers.phantoms.ct import WINDOW_CENTRE, WINDOW_WIDTH
from workers.phantoms.frame import Frame
from workers.phantoms.noise import Array
from workers.phantoms.patients import Patient

_SOP_CLASSES = {
    "US": UltrasoundImageStorage,
    "CT": CTImageStorage,
    "CR": ComputedRadiographyImageStorage,
}
_JPEG_QUALITY = (86, 96)
_XRAY_BITS = 12


class Format(StrEnum):
    """A file format, by its ending."""

    JPEG = "jpg"
    PNG = "png"
    DICOM = "dcm"


@dataclass(frozen=True)
class Header:
    """What a DICOM file says beside its pixels."""

    patient: Patient
    modality: str
    view: str
    instance: str
    """What the unique ids are derived from; equal instances have equal ids."""


def encode(frame: Frame, format_: Format, header: Header, rng: np.random.Generator) -> bytes:
    """The frame as a file; ``rng`` draws the JPEG quality."""
    if format_ is Format.DICOM:
        return _dicom(frame, header)
    pixels = frame.pixels
    if pixels.dtype == np.float32:
        pixels = np.rint(pixels * 255).astype(np.uint8)
    elif pixels.dtype == np.int16:
        pixels = _windowed_uint16(pixels)
    if format_ is Format.JPEG:
        return encode_jpeg(pixels, int(rng.integers(*_JPEG_QUALITY)))
    return encode_png(pixels)


def encode_jpeg(pixels: Array, quality: int) -> bytes:
    """A grey or RGB uint8 image as JPEG."""
    return _encoded(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(pixels: Array) -> bytes:
    """A grey or RGB image, uint8 or uint16, as PNG."""
    # Fast rather than small: noise has few repetitions for the compressor to find, masks only runs.
    options = [
        cv2.IMWRITE_PNG_COMPRESSION,
        1,
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_RLE,
    ]
    return _encoded(".png", pixels, options)


def _encoded(ending: str, pixels: Array, options: list[int]) -> bytes:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, buffer = cv2.imencode(ending, bgr, options)
    if not done:
        raise ValueError(f"OpenCV could not encode {pixels.shape} {pixels.dtype} as {ending}")
    return bytes(buffer)


def _windowed_uint16(hu: Array) -> Array:
    """Hounsfield units under the lung window, spread over all 16 bits."""
    low = WINDOW_CENTRE - WINDOW_WIDTH / 2
    share: Array = (hu.astype(np.float32) - low) / WINDOW_WIDTH
    stored: Array = np.rint(np.clip(share, 0, 1) * 65535).astype(np.uint16)
    return stored


def dicom_header(header: Header) -> Dataset:
    """A DICOM data set without pixels (PS3.3, the modules all images share)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _SOP_CLASSES[header.modality]
    meta.MediaStorageSOPInstanceUID = _uid("instance", header.instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("rayward", "phantoms")
    meta.ImplementationVersionName = "RAYWARD_PHANTOM"
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = _uid("study", header.patient.id)
    data.SeriesInstanceUID = _uid("series", header.patient.id)
    data.StudyDate = header.patient.study_date.strftime("%Y%m%d")
    data.Modality = header.modality
    data.PatientName = header.patient.id
    data.PatientID = header.patient.id
    data.PatientSex = header.patient.sex
    data.PatientAge = f"{header.patient.age:03d}Y"
    if header.modality == "CR":
        data.ViewPosition = header.view
    return data


def dicom_bytes(data: Dataset) -> bytes:
    """A data set as a DICOM file."""
    buffer = io.BytesIO()
    dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def _dicom(frame: Frame, header: Header) -> bytes:
    data = dicom_header(header)
    data.Rows, data.Columns = frame.pixels.shape
    data.SamplesPerPixel = 1
    data.BitsAllocated, data.PixelRepresentation = 16, 0
    data.BitsStored, data.HighBit = _XRAY_BITS, _XRAY_BITS - 1
    spacing = f"{frame.spacing_mm:.6f}"
    if frame.pixels.dtype == np.int16:
        stored = (frame.pixels + 1024).astype("<u2")
        data.PhotometricInterpretation = "MONOCHROME2"
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "-1024", "1", "HU"
        data.WindowCenter, data.WindowWidth = f"{WINDOW_CENTRE:.0f}", f"{WINDOW_WIDTH:.0f}"
        data.PixelSpacing = [spacing, spacing]
        data.SliceThickness = "5"
    else:
        # MONOCHROME1: the lowest value is white (PS3.3 C.7.6.3.1.2).
        top = 2**_XRAY_BITS - 1
        stored = np.rint((1 - frame.pixels) * top).astype("<u2")
        data.PhotometricInterpretation = "MONOCHROME1"
        data.WindowCenter, data.WindowWidth = str(2 ** (_XRAY_BITS - 1)), str(top + 1)
        data.ImagerPixelSpacing = [spacing, spacing]
    data.PixelData = stored.tobytes()
    return dicom_bytes(data)


def _uid(*parts: str) -> UID:
    """A unique id from a UUID-like number (PS3.5 B.2), the same for the same parts."""
    digest = hashlib.blake2b("/".join(parts).encode(), digest_size=16).digest()
    return UID(f"2.25.{int.from_bytes(digest, 'big')}")
