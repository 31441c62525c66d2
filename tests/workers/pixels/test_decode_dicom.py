"""Tests of decoding DICOM, against pydicom where it does the same and against hand calculation."""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode import Limits, open_image

Array = NDArray[Any]


def dataset(array: Array, **elements: Any) -> FileDataset:
    """A data set whose stored values are ``array``: (H, W), (F, H, W) or, if RGB, (H, W, 3)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    one = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    colour = array.ndim == 3 and array.shape[-1] == 3
    one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid()
    one.SamplesPerPixel = 3 if colour else 1
    one.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        one.PlanarConfiguration = 0
    rows, columns = array.shape[:2] if colour or array.ndim == 2 else array.shape[1:]
    one.Rows, one.Columns = rows, columns
    if array.ndim == 3 and not colour:
        one.NumberOfFrames = array.shape[0]
    one.BitsAllocated = one.BitsStored = array.dtype.itemsize * 8
    one.HighBit = one.BitsStored - 1
    one.PixelRepresentation = int(array.dtype.kind == "i")
    one.PixelData = array.tobytes()
    one["PixelData"].VR = "OW"
    for name, value in elements.items():
        setattr(one, name, value)
    if "BitsStored" in elements:
        one.HighBit = one.BitsStored - 1
    return one


def saved(one: FileDataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    sink = io.BytesIO()
    one.file_meta.TransferSyntaxUID = syntax
    dcmwrite(
        sink,
        one,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=syntax != ExplicitVRBigEndian,
        force_encoding=syntax == ExplicitVRBigEndian,
    )
    return sink.getvalue()


def compressed(one: FileDataset, syntax: UID) -> bytes:
    one.compress(syntax, generate_instance_uid=False)
    sink = io.BytesIO()
    one.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def rejection(data: bytes, limits: Limits | None = None) -> RejectedImage:
    with pytest.raises(RejectedImage) as rejected:
        open_image(data, limits).pixels(0)
    return rejected.value


@pytest.fixture
def twelve() -> Array:
    return np.random.default_rng(5).integers(0, 4096, (11, 14), dtype=np.uint16)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_stored_values_and_bits_come_back(twelve: Array, syntax: UID) -> None:
    image = open_image(saved(dataset(twelve, BitsStored=12), syntax))
    assert (image.format, len(image.frames)) == ("dicom", 1)
    facts, pixels = image.frames[0], image.pixels(0)
    assert (facts.height, facts.width, facts.bits, facts.channels) == (11, 14, 12, 1)
    assert (pixels.bits, pixels.window, pixels.inverted) == (12, None, False)
    assert pixels.array.dtype.name == "uint16"
    np.testing.assert_array_equal(pixels.array, twelve)


def test_big_endian_comes_back_in_native_order(twelve: Array) -> None:
    one = dataset(twelve)
    # The writer turns no bytes of pixel data around.
    one.PixelData = twelve.astype(">u2").tobytes()
    pixels = open_image(saved(one, ExplicitVRBigEndian)).pixels(0)
    assert pixels.array.dtype.isnative
    np.testing.assert_array_equal(pixels.array, twelve)


def test_bits_beyond_those_stored_are_dropped(twelve: Array) -> None:
    pixels = open_image(saved(dataset(twelve | 0xA000, BitsStored=12))).pixels(0)
    np.testing.assert_array_equal(pixels.array, twelve)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("shape", [(40, 48), (3, 40, 48), (40, 48, 3)])
def test_lossless_compression_comes_back(syntax: UID, shape: tuple[int, ...]) -> None:
    dtype = np.uint8 if shape[-1] == 3 else np.uint16
    array = np.random.default_rng(6).integers(0, 256, shape).astype(dtype)
    image = open_image(compressed(dataset(array), syntax))
    frames = array if len(shape) == 3 and shape[-1] != 3 else array[None]
    assert len(image.frames) == len(frames)
    for number, expected in enumerate(frames):
        np.testing.assert_array_equal(image.pixels(number).array, expected)


def test_a_broken_jpeg_ls_frame_ends_no_process(twelve: Array) -> None:
    data = bytearray(compressed(dataset(twelve), JPEGLSLossless))
    # The sample precision in the frame header: GDCM calls `abort` on this.
    data[data.index(b"\xff\xf7") + 4] = 0
    assert rejection(bytes(data)).reason == RejectReason.CORRUPT


def test_ct_is_rescaled_to_hounsfield_units(twelve: Array) -> None:
    one = dataset(
        twelve,
        Modality="CT",
        BitsStored=12,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=[40, 300],
        WindowWidth=[400, 1500],
        PixelSpacing=[0.5, 0.75],
    )
    pixels = open_image(saved(one)).pixels(0)
    assert pixels.array.dtype.name == "int16"
    np.testing.assert_array_equal(pixels.array, twelve.astype(int) - 1024)
    assert pixels.window == (40, 400)
    assert pixels.spacing_mm == (0.5, 0.75)


def test_a_fractional_slope_gives_float32(twelve: Array) -> None:
    one = dataset(twelve, RescaleSlope=0.25, RescaleIntercept=3)
    pixels = open_image(saved(one)).pixels(0)
    assert pixels.array.dtype.name == "float32"
    np.testing.assert_allclose(pixels.array, apply_modality_lut(twelve, one), rtol=1e-6)
    low, high = twelve.min() / 4 + 3, twelve.max() / 4 + 3
    assert pixels.window == pytest.approx(((low + high) / 2 + 0.5, high - low + 1))


def test_values_beyond_int16_are_not_cut() -> None:
    array = np.array([[0, 65535]], np.uint16)
    pixels = open_image(saved(dataset(array, RescaleSlope=1, RescaleIntercept=-1))).pixels(0)
    np.testing.assert_array_equal(pixels.array, [[-1, 65534]])


def test_padding_does_not_stretch_the_window_of_signed_values() -> None:
    array = np.array([[-2000, -2000, 10], [20, 30, 110]], np.int16)
    one = dataset(array, PixelPaddingValue=-2000)
    assert open_image(saved(one)).pixels(0).window == (60.5, 101.0)
    del one.PixelPaddingValue
    assert open_image(saved(one)).pixels(0).window == (-944.5, 2111.0)


def test_monochrome1_is_told_and_not_turned(twelve: Array) -> None:
    one = dataset(twelve, PhotometricInterpretation="MONOCHROME1")
    pixels = open_image(saved(one)).pixels(0)
    assert pixels.inverted
    np.testing.assert_array_equal(pixels.array, twelve)


@pytest.mark.parametrize("width", [0, -5])
def test_a_window_without_width_is_none(twelve: Array, width: int) -> None:
    one = dataset(twelve, WindowCenter=10, WindowWidth=width)
    assert open_image(saved(one)).pixels(0).window is None


def lut(first: int, entries: list[int], bits: int = 16) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = entries
    item["LUTData"].VR = "US"
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    return item


def test_modality_lut_maps_and_extends_its_ends() -> None:
    array = np.array([[-3, -2, -1, 0, 5]], np.int16)
    item = lut(-2, [10, 20, 30])
    item.ModalityLUTType = "US"
    pixels = open_image(saved(dataset(array, ModalityLUTSequence=[item]))).pixels(0)
    np.testing.assert_array_equal(pixels.array, [[10, 10, 20, 30, 30]])
    assert pixels.array.dtype.name == "uint16"
    assert pixels.window is None


def test_voi_lut_is_applied_where_there_is_no_window() -> None:
    array = np.array([[0, 1, 2, 3]], np.uint8)
    item = lut(1, [100, 900, 1023], bits=10)
    pixels = open_image(saved(dataset(array, VOILUTSequence=[item]))).pixels(0)
    np.testing.assert_array_equal(pixels.array, [[100, 100, 900, 1023]])
    assert (pixels.bits, pixels.window) == (10, None)
    one = dataset(array, VOILUTSequence=[item], WindowCenter=2, WindowWidth=3)
    pixels = open_image(saved(one)).pixels(0)
    np.testing.assert_array_equal(pixels.array, array)
    assert pixels.window == (2, 3)


def palette(one: FileDataset, entries: Array, bits: int) -> FileDataset:
    one.PhotometricInterpretation = "PALETTE COLOR"
    for column, name in enumerate(("Red", "Green", "Blue")):
        key = f"{name}PaletteColorLookupTable"
        setattr(one, f"{key}Descriptor", [len(entries), 0, bits])
        one[f"{key}Descriptor"].VR = "US"
        setattr(one, f"{key}Data", entries[:, column].astype("<u2").tobytes())
    return one


@pytest.mark.parametrize(("factor", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_palettes_are_expanded(factor: int, dtype: type) -> None:
    index = np.random.default_rng(7).integers(0, 8, (5, 6), dtype=np.uint8)
    colours = np.random.default_rng(8).integers(1, 256, (8, 3))
    image = open_image(saved(palette(dataset(index), colours * factor, 16)), "")
    pixels = image.pixels(0)
    assert image.frames[0].channels == 3
    assert pixels.array.dtype == np.dtype(dtype)
    assert image.frames[0].bits == pixels.bits == np.dtype(dtype).itemsize * 8
    scale = 1 if dtype == np.uint8 else factor
    np.testing.assert_array_equal(pixels.array, colours[index] * scale)


def test_an_index_beyond_an_eight_bit_palette_takes_its_last_entry() -> None:
    index = np.array([[0, 3, 300]], np.uint16)
    colours = np.arange(1, 13).reshape(4, 3)
    pixels = open_image(saved(palette(dataset(index), colours, 8)), "").pixels(0)
    np.testing.assert_array_equal(pixels.array, colours[[0, 3, 3]][None])


def test_full_range_ybr_becomes_rgb() -> None:
    ybr = np.array([[[255, 128, 128], [76, 85, 255], [0, 128, 128]]], np.uint8)
    one = dataset(ybr, PhotometricInterpretation="YBR_FULL")
    array = open_image(saved(one)).pixels(0).array.astype(int)
    expected = [[[255, 255, 255], [254, 0, 0], [0, 0, 0]]]
    assert np.abs(array - expected).max() <= 1


def test_single_bits_are_zero_and_one() -> None:
    mask = np.random.default_rng(9).integers(0, 2, (2, 5, 7), dtype=np.uint8)
    one = dataset(mask)
    one.BitsAllocated = one.BitsStored = 1
    one.HighBit = 0
    packed = np.packbits(mask.ravel(), bitorder="little").tobytes()
    one.PixelData = packed + bytes(len(packed) % 2)
    image = open_image(saved(one))
    assert image.frames[0].bits == 1
    for number in range(2):
        np.testing.assert_array_equal(image.pixels(number).array, mask[number])


def test_thirty_two_bits_are_shown_by_their_range() -> None:
    array = np.array([[1_000_000, 1_000_100]], np.uint32)
    pixels = open_image(saved(dataset(array))).pixels(0)
    assert pixels.array.dtype.name == "float32"
    assert pixels.window == (1_000_050.5, 101)
    colour = np.full((2, 2, 3), 0xABCD1234, np.uint32)
    pixels = open_image(saved(dataset(colour))).pixels(0)
    np.testing.assert_array_equal(pixels.array, np.full((2, 2, 3), 0xABCD, np.uint16))


def test_functional_groups_speak_for_their_frame() -> None:
    array = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    groups = []
    for number in range(2):
        value, window = Dataset(), Dataset()
        value.RescaleSlope, value.RescaleIntercept = 1, -10 * (number + 1)
        window.WindowCenter, window.WindowWidth = 50 + number, 100
        group = Dataset()
        group.PixelValueTransformationSequence = [value]
        group.FrameVOILUTSequence = [window]
        groups.append(group)
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing = [2, 3]
    shared.PixelMeasuresSequence = [measures]
    one = dataset(
        array,
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=[shared],
    )
    image = open_image(saved(one))
    for number in range(2):
        pixels = image.pixels(number)
        np.testing.assert_array_equal(pixels.array, array[number].astype(int) - 10 * (number + 1))
        assert (pixels.window, pixels.spacing_mm) == ((50 + number, 100), (2, 3))


def test_facts_of_the_header(twelve: Array) -> None:
    one = dataset(
        twelve,
        Modality="CR",
        PatientID=" H-42 ",
        PatientName="Doe^Jane Q",
        PatientAge="018M",
        PatientSex="F",
        PatientBirthDate="19600102",
        InstitutionName="St. Elsewhere",
        ViewPosition="PA",
        Laterality="L",
        StudyDate="20190530",
        AccessionNumber="ACC7",
    )
    header = open_image(saved(one)).header
    assert (header.modality, header.patient_id, header.age, header.sex) == ("CR", "H-42", 1.5, "F")
    assert (header.site, header.view, header.laterality) == ("St. Elsewhere", "PA", "L")
    assert header.study_date == "2019-05-30"
    assert set(header.identifiers) == {"H-42", "ACC7", "19600102", "Doe", "Jane"}
    assert "H-42" not in repr(header)
    del one.PatientAge
    assert open_image(saved(one)).header.age == pytest.approx(59.41, abs=0.01)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_facts_are_none(twelve: Array) -> None:
    one = dataset(twelve, PatientAge="old", PatientSex="X", StudyDate="2019", Modality="C<R>")
    header = open_image(saved(one)).header
    assert (header.age, header.sex, header.study_date, header.modality) == (None,) * 4


def test_a_file_without_preamble_is_read(twelve: Array) -> None:
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        data = saved(dataset(twelve, Modality="MR"), syntax)
        meta_length = int.from_bytes(data[140:144], "little")
        image = open_image(data[144 + meta_length :])
        np.testing.assert_array_equal(image.pixels(0).array, twelve)


def test_a_preamble_that_looks_like_tiff_does_not_mislead(twelve: Array) -> None:
    data = b"II*\0" + saved(dataset(twelve))[4:]
    assert open_image(data).format == "dicom"


def test_pixel_data_that_is_cut_off_is_rejected_when_opened(twelve: Array) -> None:
    one = dataset(np.stack([twelve] * 3))
    one.PixelData = one.PixelData[:-200]
    with pytest.raises(RejectedImage, match="bytes of pixel data") as rejected:
        open_image(saved(one))
    assert rejected.value.reason == RejectReason.TRUNCATED
    whole = compressed(dataset(np.stack([twelve] * 3)), RLELossless)
    assert rejection(whole[:-30]).reason == RejectReason.TRUNCATED
    short = dcmread(io.BytesIO(whole))
    short.NumberOfFrames = 9
    sink = io.BytesIO()
    short.save_as(sink)
    with pytest.raises(RejectedImage, match="3 fragments for 9 frames"):
        open_image(sink.getvalue())


def test_objects_without_pixels_are_told(twelve: Array) -> None:
    one = dataset(twelve)
    del one.PixelData
    reject = rejection(saved(one))
    assert (reject.reason, reject.detail) == (RejectReason.NO_PIXELS, "CT Image Storage")


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"BitsAllocated": 24}, RejectReason.UNSUPPORTED_PIXELS),
        ({"BitsStored": 17}, RejectReason.UNSUPPORTED_PIXELS),
        ({"SamplesPerPixel": 2}, RejectReason.UNSUPPORTED_PIXELS),
        ({"PhotometricInterpretation": "HSV"}, RejectReason.UNSUPPORTED_PIXELS),
        ({"Rows": 0}, RejectReason.CORRUPT),
        ({"Columns": None}, RejectReason.CORRUPT),
    ],
)
def test_impossible_layouts_are_rejected(
    twelve: Array, elements: dict[str, Any], reason: RejectReason
) -> None:
    assert rejection(saved(dataset(twelve, **elements))).reason == reason


def test_floating_point_pixels_are_rejected() -> None:
    one = dataset(np.zeros((2, 2), np.uint16))
    del one.PixelData
    one.FloatPixelData = np.zeros(4, np.float32).tobytes()
    assert rejection(saved(one)).reason == RejectReason.UNSUPPORTED_PIXELS


def test_bombs_are_rejected_by_their_headers(twelve: Array) -> None:
    data = saved(dataset(twelve))
    assert rejection(data, Limits(max_pixels=153)).reason == RejectReason.TOO_MANY_PIXELS
    assert rejection(data, Limits(max_bytes=307)).reason == RejectReason.TOO_MANY_BYTES
    many = saved(dataset(twelve, NumberOfFrames=2**31 - 1))
    assert rejection(many).reason == RejectReason.TRUNCATED


def test_a_frame_that_claims_to_be_larger_than_its_header_is_not_decoded() -> None:
    big = compressed(dataset(np.zeros((64, 64), np.uint8)), JPEG2000Lossless)
    one = dcmread(io.BytesIO(big))
    one.Rows = one.Columns = 8
    sink = io.BytesIO()
    one.save_as(sink)
    reject = rejection(sink.getvalue(), Limits(max_pixels=100))
    assert reject.reason == RejectReason.TOO_MANY_PIXELS
    assert rejection(sink.getvalue()).reason == RejectReason.CORRUPT


def test_a_deflated_bomb_is_not_inflated_whole(twelve: Array) -> None:
    data = saved(dataset(np.zeros((2000, 2000), np.uint16)), DeflatedExplicitVRLittleEndian)
    assert len(data) < 50_000
    assert open_image(data).pixels(0).array.shape == (2000, 2000)
    reject = rejection(data, Limits(max_bytes=1_000_000))
    assert reject.reason == RejectReason.TOO_MANY_BYTES
    assert "inflated" in reject.detail
    assert rejection(data[: len(data) // 2]).reason == RejectReason.TRUNCATED


def test_gzip_around_dicom_is_named(twelve: Array) -> None:
    packed = zlib.compressobj(wbits=31)
    data = packed.compress(saved(dataset(twelve))) + packed.flush()
    assert rejection(data).detail == "gzip is not read"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "693_J2KR.dcm", "693_UNCI.dcm", "HTJ2KLossless_08_RGB.dcm", "JLSL_08_07_0_1F.dcm",
        "JLSL_RGB_ILV1.dcm", "JPEG-LL.dcm", "MR2_J2KR.dcm", "RG3_J2KR.dcm", "US1_J2KR.dcm",
        "US1_UNCI.dcm", "emri_small_big_endian.dcm", "SC_ybr_full_uncompressed.dcm",
    ],
)  # fmt: skip
def test_real_files_equal_pydicom(shared_data: Path, name: str) -> None:
    path = shared_data / "dicom" / "pydicom-data" / name
    one = dcmread(path, force=True)
    expected = one.pixel_array
    expected = expected[0] if one.get("NumberOfFrames", 1) > 1 else expected
    pixels = open_image(path.read_bytes()).pixels(0)
    if pixels.array.ndim == 2:
        expected = apply_modality_lut(expected, one)
    np.testing.assert_allclose(pixels.array, expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["OBXXXX1A_rle.dcm", "gdcm-US-ALOKA-16_big.dcm"])
def test_real_palettes_equal_pydicom(shared_data: Path, name: str) -> None:
    path = shared_data / "dicom" / "pydicom-data" / name
    one = dcmread(path, force=True)
    expected = apply_color_lut(one.pixel_array, one)
    pixels = open_image(path.read_bytes()).pixels(0)
    scale = 256 if pixels.array.dtype == np.uint8 else 1
    np.testing.assert_array_equal(pixels.array.astype(int) * scale, expected)
