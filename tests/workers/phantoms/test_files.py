"""Formats, broken files, duplicates and flaws of rendered corpora."""

import io
from collections import Counter

import numpy as np
import pydicom
import pytest
from PIL import Image, UnidentifiedImageError
from pydicom.errors import InvalidDicomError

from schemas.reasons import RejectReason
from workers.phantoms.changes import Flaw, flawed, nearly
from workers.phantoms.corpus import Corpus, Phantom
from workers.phantoms.ct import draw_ct
from workers.phantoms.encode import Format, Header, encode
from workers.phantoms.frame import Case, Frame, Site
from workers.phantoms.noise import generator
from workers.phantoms.patients import Patient, Role
from workers.phantoms.xray import draw_xray


def _patient(corpus: Corpus, index: int) -> Patient:
    return corpus.entry(index).patient


def _ct_frame(label: str = "malignant") -> Frame:
    return draw_ct(Case(label, "axial", Site("SITE-01"), 128), generator(1, 1), generator(2, 1))


def _xray_frame() -> Frame:
    return draw_xray(Case("normal", "PA", Site("SITE-01"), 128), generator(1, 1), generator(2, 1))


def test_sound_files_open_as_what_they_are(mixed: Corpus, rendered: list[Phantom]) -> None:
    endings = Counter()
    for phantom in rendered:
        if "broken" in phantom.rows:
            continue
        row, data = phantom.rows["metadata"][0], phantom.files[0].data
        ending = row["path"].rsplit(".")[-1]
        endings[row["modality"], ending] += 1
        if ending == "dcm":
            image = pydicom.dcmread(io.BytesIO(data))
            assert (image.PatientID, str(image.PatientName)) == (row["patient"],) * 2
            assert (image.PatientSex, image.PatientAge) == (row["sex"], f"{row['age']:03d}Y")
            assert image.StudyDate == row["study_date"].strftime("%Y%m%d")
            assert image.pixel_array.shape == (image.Rows, image.Columns)
        else:
            shown = Image.open(io.BytesIO(data))
            shown.load()
            modes = {"US": "RGB", "CT": "I;16", "CR": "L"}
            assert shown.mode == modes[row["modality"]]
    assert set(endings) == {
        ("US", "jpg"), ("US", "png"), ("CT", "dcm"), ("CT", "png"),
        ("CR", "jpg"), ("CR", "png"), ("CR", "dcm"),
    }  # fmt: skip


def test_ct_files_hold_hounsfield_units(mixed: Corpus) -> None:
    frame = _ct_frame()
    header = Header(_patient(mixed, 0), "CT", "axial", "one")
    image = pydicom.dcmread(io.BytesIO(encode(frame, Format.DICOM, header, generator(0))))
    assert image.BitsStored == 12
    hu = image.pixel_array.astype(int) * int(image.RescaleSlope) + int(image.RescaleIntercept)
    assert np.array_equal(hu, frame.pixels)
    lung, soft = np.percentile(hu, [20, 97])
    assert lung < -700 and 0 < soft < 500
    png = np.asarray(Image.open(io.BytesIO(encode(frame, Format.PNG, header, generator(0)))))
    expected = np.clip((frame.pixels + 1350) / 1500, 0, 1) * 65535
    assert np.abs(png - expected).max() <= 1


def test_dicom_xrays_are_inverted(mixed: Corpus) -> None:
    frame = _xray_frame()
    header = Header(_patient(mixed, 0), "CR", "PA", "one")
    image = pydicom.dcmread(io.BytesIO(encode(frame, Format.DICOM, header, generator(0))))
    assert image.PhotometricInterpretation == "MONOCHROME1"
    assert image.ViewPosition == "PA"
    shown = 1 - image.pixel_array / 4095
    assert np.abs(shown - frame.pixels).max() < 1 / 4000


def test_xray_lungs_are_darker_than_the_mediastinum() -> None:
    pixels = _xray_frame().pixels
    height, width = pixels.shape
    spine = pixels[height // 3 : height // 2, int(0.48 * width) : int(0.52 * width)].mean()
    lungs = pixels[height // 3 : height // 2, int(0.22 * width) : int(0.32 * width)].mean()
    assert spine > lungs + 0.1


def test_every_defect_is_as_described(rendered: list[Phantom]) -> None:
    seen = set()
    for phantom in rendered:
        for row in phantom.rows.get("broken", []):
            data, defect = phantom.files[0].data, row["defect"]
            seen.add(defect)
            assert RejectReason(row["reason"])
            assert len(phantom.files) == 1 and "boxes" not in phantom.rows
            if defect == "empty":
                assert data == b""
            elif defect == "bomb":
                with pytest.warns(Image.DecompressionBombWarning):
                    size = _lazy_size(data)
                assert size[0] * size[1] > 2e9 and len(data) < 1000
            elif defect == "no_pixels":
                assert "PixelData" not in pydicom.dcmread(io.BytesIO(data))
            elif defect == "truncated" and row["path"].endswith("dcm"):
                with pytest.raises((ValueError, AttributeError, EOFError, OSError)):
                    _ = pydicom.dcmread(io.BytesIO(data)).pixel_array
            elif defect == "truncated":
                with pytest.raises(OSError, match=r"truncated|incomplete|broken"):
                    Image.open(io.BytesIO(data)).load()
            else:
                with pytest.raises(UnidentifiedImageError):
                    Image.open(io.BytesIO(data))
                with pytest.raises(InvalidDicomError):
                    pydicom.dcmread(io.BytesIO(data))
                assert defect == "wrong_magic" or data.decode().isprintable() is False
    assert seen == {"empty", "bomb", "no_pixels", "truncated", "wrong_magic", "text"}


def _lazy_size(data: bytes) -> tuple[int, int]:
    # Beyond twice the limit Pillow raises instead of warning.
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = 2_000_000_000
    try:
        return Image.open(io.BytesIO(data)).size
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def test_exact_duplicates_repeat_the_bytes(mixed: Corpus, rendered: list[Phantom]) -> None:
    by_path = {phantom.rows["metadata"][0]["path"]: phantom for phantom in rendered}
    kinds = Counter()
    for phantom in rendered:
        for row in phantom.rows.get("duplicates", []):
            source = by_path[row["duplicate_of"]]
            kinds[row["kind"]] += 1
            same = source.files[0].data == phantom.files[0].data
            assert same == (row["kind"] == "exact")
            assert source.rows["metadata"][0]["patient"] == phantom.rows["metadata"][0]["patient"]
            if row["kind"] == "exact":
                boxes = [
                    [(box["x"], box["y"], box["w"], box["h"]) for box in one.rows.get("boxes", [])]
                    for one in (source, phantom)
                ]
                assert boxes[0] == boxes[1]
    assert kinds["exact"] > 10 and kinds["near"] > 15
    originals = [
        phantom.files[0].data
        for index, phantom in enumerate(rendered)
        if mixed.entry(index).role is Role.ORIGINAL
    ]
    assert len(set(originals)) == len(originals)


@pytest.mark.parametrize("frame", [_ct_frame(), _xray_frame()], ids=["ct", "xray"])
def test_near_duplicates_move_by_two_pixels_and_levels_at_most(frame: Frame) -> None:
    for number in range(6):
        near = nearly(frame, generator(number))
        assert near.pixels.dtype == frame.pixels.dtype
        inner = near.pixels[8:-8, 8:-8].astype(np.float64)
        height, width = frame.pixels.shape
        smallest = min(
            np.abs(
                inner - frame.pixels[8 - down : height - 8 - down, 8 - right : width - 8 - right]
            ).max()
            for down in range(-2, 3)
            for right in range(-2, 3)
        )
        assert 0.4 * frame.grey_step < smallest < 2.6 * frame.grey_step
        assert not np.array_equal(near.pixels, frame.pixels)


def test_masks_move_with_their_image() -> None:
    frame = _ct_frame()
    for number in range(6):
        near = nearly(frame, generator(number))
        before, after = frame.marks[0].box, near.marks[0].box
        assert (before.width, before.height) == (after.width, after.height)
        assert max(abs(before.x - after.x), abs(before.y - after.y)) in (1, 2)


def test_flaws_are_as_described(rendered: list[Phantom]) -> None:
    frame, rng = _xray_frame(), generator(1)
    assert flawed(frame, Flaw.DARK, rng).pixels.mean() < 4 / 255
    assert flawed(frame, Flaw.BLANK, rng).pixels.std() < 1e-6
    sharp = np.diff(frame.pixels, axis=1).std()
    assert np.diff(flawed(frame, Flaw.BLURRED, rng).pixels, axis=1).std() < 0.5 * sharp
    flaws = Counter(row["flaw"] for one in rendered for row in one.rows.get("flaws", []))
    assert set(flaws) == {"small", "dark", "blurred", "blank"}
    for phantom in rendered:
        small = any(row["flaw"] == "small" for row in phantom.rows.get("flaws", []))
        if small and phantom.files[0].path.endswith(("jpg", "png")):
            assert Image.open(io.BytesIO(phantom.files[0].data)).width == 29


def test_unique_ids_are_unique_except_for_exact_duplicates(rendered: list[Phantom]) -> None:
    instances = Counter()
    for phantom in rendered:
        exact = any(row["kind"] == "exact" for row in phantom.rows.get("duplicates", []))
        if phantom.files[0].path.endswith("dcm") and "broken" not in phantom.rows and not exact:
            header = pydicom.dcmread(io.BytesIO(phantom.files[0].data), stop_before_pixels=True)
            instances[header.SOPInstanceUID] += 1
    assert len(instances) > 30
    assert set(instances.values()) == {1}
