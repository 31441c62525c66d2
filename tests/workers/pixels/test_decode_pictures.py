"""Tests of decoding PNG, JPEG, TIFF, BMP and WebP, against Pillow and against hand-made files."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode import ImageFile, Limits, open_image

Array = NDArray[Any]


@pytest.fixture
def grey() -> Array:
    return np.random.default_rng(1).integers(0, 256, (13, 21), dtype=np.uint8)


@pytest.fixture
def rgb() -> Array:
    # Smooth, so that lossy formats keep it recognisable.
    y, x = np.mgrid[0:24, 0:40]
    return np.stack([x * 6, y * 10, 255 - x * 6], -1).astype(np.uint8)


def saved(array: Array | Image.Image, kind: str, **options: Any) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(array: Array, depth: int, colour: int, *extras: bytes) -> bytes:
    """A PNG written by hand, filter 0, from samples in their final byte layout (H, bytes)."""
    height, row_bytes = array.shape
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    width = row_bytes * 8 // (depth * samples)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in array))
    parts = [chunk(b"IHDR", header), *extras, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def reason_of(data: bytes, limits: Limits | None = None) -> RejectReason:
    with pytest.raises(RejectedImage) as rejected:
        open_image(data, limits).pixels(0)
    return rejected.value.reason


def decoded(data: bytes) -> Array:
    """The only frame, after checking that the header told its shape."""
    image = open_image(data)
    assert len(image.frames) == 1
    return frame_of(image, 0)


def frame_of(image: ImageFile, frame: int) -> Array:
    pixels, facts = image.pixels(frame), image.frames[frame]
    assert pixels.array.shape[:2] == (facts.height, facts.width)
    assert pixels.array.ndim == (2 if facts.channels == 1 else 3)
    assert pixels.array.flags.c_contiguous
    return pixels.array


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_grey_and_colour_come_back(kind: str, grey: Array, rgb: Array) -> None:
    for array in (grey, rgb):
        image = open_image(saved(array, kind))
        assert image.format == kind.lower()
        assert image.frames[0].bits == 8
        np.testing.assert_array_equal(frame_of(image, 0), array)


def test_webp_comes_back_lossless_and_lossy(rgb: Array) -> None:
    np.testing.assert_array_equal(decoded(saved(rgb, "WEBP", lossless=True)), rgb)
    lossy = decoded(saved(rgb, "WEBP", quality=90))
    assert np.abs(lossy.astype(int) - rgb).mean() < 6


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_equals_pillow_bit_for_bit(grey: Array, rgb: Array, options: dict[str, Any]) -> None:
    for array in (grey, rgb):
        data = saved(array, "JPEG", quality=80, **options)
        np.testing.assert_array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept(kind: str) -> None:
    deep = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    image = open_image(saved(deep, kind))
    assert image.frames[0].bits == 16
    np.testing.assert_array_equal(frame_of(image, 0), deep)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bit_colour_is_kept(extension: str) -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    _, data = cv2.imencode(extension, deep[..., ::-1])
    image = open_image(data.tobytes())
    assert (image.frames[0].bits, image.frames[0].channels) == (16, 3)
    np.testing.assert_array_equal(frame_of(image, 0), deep)


def test_pages_of_sixteen_bit_colour_are_told_apart() -> None:
    pages = [np.full((4 + page, 5, 3), [page * 1000, 7, 60_000], np.uint16) for page in range(3)]
    _, data = cv2.imencodemulti(".tiff", [page[..., ::-1] for page in pages])
    image = open_image(data.tobytes())
    assert len(image.frames) == 3
    for number, page in enumerate(pages):
        np.testing.assert_array_equal(frame_of(image, number), page)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_are_widened(bits: int) -> None:
    packed = np.random.default_rng(bits).integers(0, 256, (6, 8), dtype=np.uint8)
    data = png(packed, bits, 0)
    spread = np.unpackbits(packed, axis=1).reshape(6, -1, bits)
    values = spread @ (2 ** np.arange(bits)[::-1])
    image = open_image(data)
    assert (image.frames[0].bits, image.frames[0].channels) == (8, 1)
    np.testing.assert_array_equal(frame_of(image, 0), values * 255 // (2**bits - 1))


def test_a_bilevel_tiff_is_black_and_white() -> None:
    mask = np.eye(16, dtype=bool)
    data = saved(Image.fromarray(mask), "TIFF", compression="group4")
    np.testing.assert_array_equal(decoded(data), mask.astype(np.uint8) * 255)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_palettes_are_expanded(kind: str, rgb: Array) -> None:
    image = Image.fromarray(rgb).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decoded(saved(image, kind)), expected)


def test_a_transparent_palette_entry_is_black(rgb: Array) -> None:
    image = Image.fromarray(rgb).quantize(8)
    array = decoded(saved(image, "PNG", transparency=3))
    indices = np.asarray(image)
    assert (array[indices == 3] == 0).all()
    np.testing.assert_array_equal(
        array[indices != 3], np.asarray(image.convert("RGB"))[indices != 3]
    )


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composed_on_black(kind: str, rgb: Array) -> None:
    alpha = np.linspace(0, 255, rgb[..., 0].size).reshape(rgb.shape[:2]).astype(np.uint8)
    data = saved(np.dstack([rgb, alpha]), kind, **({"lossless": True} if kind == "WEBP" else {}))
    visible = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(np.float64)
    expected = visible[..., :3] * visible[..., 3:] / 255
    assert np.abs(decoded(data) - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_with_alpha_stays_grey(depth: int) -> None:
    dtype, top = (np.uint8, 255) if depth == 8 else (np.dtype(">u2"), 65535)
    pairs = np.array([[[top, 0], [top, top], [top // 3, top], [top, top // 5]]], dtype)
    array = decoded(png(pairs.reshape(1, -1).view(np.uint8), depth, 4))
    np.testing.assert_array_equal(array, [[0, top, top // 3, top // 5]])


def test_sixteen_bit_alpha_is_composed_in_sixteen_bits() -> None:
    four = np.array([[[65535, 40000, 100, 32768], [1, 2, 3, 65535]]], ">u2")
    array = decoded(png(four.reshape(1, -1).view(np.uint8), 16, 6))
    weighted = [round(one * 32768 / 65535) for one in (65535, 40000, 100)]
    np.testing.assert_array_equal(array, [[weighted, [1, 2, 3]]])


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "expected"),
    [
        (8, 0, [9, 10, 11], [10], [[9, 0, 11]]),
        (8, 2, [1, 2, 3, 1, 2, 4], [1, 2, 3], [[[0, 0, 0], [1, 2, 4]]]),
        (16, 0, [1, 0, 1, 1], [257], [[256, 0]]),
        (1, 0, [0b10100000], [1], [[0, 0, 0, 0, 0, 0, 0, 0]]),
    ],
)
def test_a_transparent_colour_is_black(
    depth: int, colour: int, row: list[int], key: list[int], expected: list[Any]
) -> None:
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    array = decoded(png(np.array([row], np.uint8), depth, colour, transparent))
    np.testing.assert_array_equal(array, expected)


def test_cmyk_becomes_rgb(rgb: Array) -> None:
    for kind in ("JPEG", "TIFF"):
        data = saved(Image.fromarray(rgb).convert("CMYK"), kind)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.abs(expected.astype(int) - rgb).mean() < 10
        np.testing.assert_array_equal(decoded(data), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str, orientation: int, rgb: Array) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(rgb, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(decoded(data), expected)


def test_a_broken_exif_block_turns_nothing(rgb: Array) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(rgb, "JPEG", exif=exif)
    at = data.index(b"Exif\0\0") + 6
    broken = data[:at] + b"\xff" * 8 + data[at + 8 :]
    assert decoded(broken).shape == rgb.shape


def test_white_is_zero_is_told_where_pillow_does_not_turn_it() -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    data = bytearray(saved(deep, "TIFF"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.tag_v2[262] == 1  # type: ignore[attr-defined]
    entry = struct.pack("<HHI", 262, 3, 1)
    data[data.index(entry) + 8] = 0
    pixels = open_image(bytes(data)).pixels(0)
    assert pixels.inverted
    np.testing.assert_array_equal(pixels.array, deep)
    turned = saved(Image.fromarray((255 - np.arange(64, dtype=np.uint8)).reshape(8, 8)), "TIFF")
    assert not open_image(turned).pixels(0).inverted


def test_signed_samples_come_with_a_window_of_their_range() -> None:
    signed = np.array([[-5, 0], [7, 300]], np.int16)
    ifd = [
        (256, 4, 2), (257, 4, 2), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 4, 2), (279, 4, 8), (339, 3, 2),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in ifd)
    data = (
        struct.pack("<2sHI", b"II", 42, 16)
        + signed.tobytes()
        + struct.pack("<H", len(ifd))
        + entries
        + bytes(4)
    )
    pixels = open_image(data).pixels(0)
    assert pixels.array.dtype == np.int16
    np.testing.assert_array_equal(pixels.array, signed)
    assert pixels.window == (148.0, 306.0)


def test_floating_point_samples_are_rejected() -> None:
    data = saved(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF")
    assert reason_of(data) == RejectReason.UNSUPPORTED_PIXELS


def test_pages_of_a_tiff_are_frames_and_thumbnails_are_not(grey: Array) -> None:
    first, second = Image.fromarray(grey), Image.fromarray(grey[:5, :6])
    sink = io.BytesIO()
    first.save(sink, "TIFF", save_all=True, append_images=[second])
    image = open_image(sink.getvalue())
    assert [(one.height, one.width) for one in image.frames] == [(13, 21), (5, 6)]
    np.testing.assert_array_equal(frame_of(image, 1), grey[:5, :6])
    np.testing.assert_array_equal(frame_of(image, 0), grey)

    sink = io.BytesIO()
    thumbnail = second.copy()
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(sink, "TIFF", save_all=True, append_images=[thumbnail])
    image = open_image(sink.getvalue())
    assert [(one.height, one.width) for one in image.frames] == [(13, 21)]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_rejected(kind: str, rgb: Array) -> None:
    first, second = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    data = saved(first, kind, save_all=True, append_images=[second])
    assert reason_of(data) == RejectReason.ANIMATED


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_file_that_is_cut_off_is_rejected_when_opened(kind: str) -> None:
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    noise = np.random.default_rng(3).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    data = saved(noise, kind, **options)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(RejectedImage) as rejected:
            open_image(data[: int(len(data) * share)])
        assert rejected.value.reason in (RejectReason.TRUNCATED, RejectReason.CORRUPT)


def test_a_picture_that_lacks_its_end_mark_only_is_read(rgb: Array) -> None:
    data = saved(rgb, "PNG")
    np.testing.assert_array_equal(decoded(data[:-12]), rgb)
    jpeg = saved(rgb, "JPEG")
    np.testing.assert_array_equal(decoded(jpeg[:-2] + bytes(64)), decoded(jpeg))


def test_the_end_marker_of_a_thumbnail_does_not_count(rgb: Array) -> None:
    data = saved(rgb, "JPEG")
    thumbnail = saved(rgb[:8, :8], "JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert decoded(data[:2] + segment + data[2:]).shape == rgb.shape
    cut = data[:2] + segment + data[2 : len(data) * 2 // 3]
    assert reason_of(cut) == RejectReason.TRUNCATED


def test_a_damaged_chunk_is_found_when_opened(grey: Array) -> None:
    data = bytearray(saved(grey, "PNG"))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(RejectedImage):
        open_image(bytes(data))


def test_chunks_that_do_not_matter_change_nothing(grey: Array) -> None:
    data = saved(grey, "PNG", pnginfo=None)
    extras = chunk(b"iCCP", b"x\0\0junk") + chunk(b"tEXt", b"k\0v") + chunk(b"sBIT", b"\x07\x07")
    np.testing.assert_array_equal(decoded(data[:33] + extras + data[33:]), grey)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", RejectReason.EMPTY_FILE),
        (b"hello, world" * 20, RejectReason.UNKNOWN_FORMAT),
        (bytes(5000), RejectReason.UNKNOWN_FORMAT),
        (b"GIF89a" + bytes(100), RejectReason.UNKNOWN_FORMAT),
        (b"\xff\xd8\xff\xe0", RejectReason.CORRUPT),
        (b"\x89PNG\r\n\x1a\n", RejectReason.TRUNCATED),
        (b"BMXXXXXXXXXXXXXXXXXXXX", RejectReason.UNKNOWN_FORMAT),
        (b"PK\x03\x04" + bytes(30), RejectReason.CORRUPT),
    ],
)
def test_what_is_no_picture_is_rejected(data: bytes, reason: RejectReason) -> None:
    assert reason_of(data) == reason


def test_the_name_of_a_file_says_nothing(grey: Array) -> None:
    assert open_image(saved(grey, "PNG")).format == "png"


def test_bombs_are_rejected_by_their_headers(rgb: Array) -> None:
    tiny = Limits(max_pixels=rgb.shape[0] * rgb.shape[1] - 1)
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        assert reason_of(saved(rgb, kind), tiny) == RejectReason.TOO_MANY_PIXELS
        assert reason_of(saved(rgb, kind), Limits(max_bytes=64)) == RejectReason.TOO_MANY_BYTES
    huge = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 16, 6, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", huge) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    assert reason_of(bomb) == RejectReason.TOO_MANY_PIXELS


def test_decoded_bytes_count_not_only_pixels() -> None:
    deep = np.zeros((10, 10, 3), np.uint16)
    _, data = cv2.imencode(".png", deep)
    limits = Limits(max_bytes=10 * 10 * 3 * 2)
    assert open_image(data.tobytes(), limits).frames[0].bits == 16
    assert reason_of(data.tobytes(), Limits(max_bytes=599)) == RejectReason.TOO_MANY_BYTES


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_pictures_without_area_are_rejected(size: tuple[int, int]) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    assert reason_of(data) == RejectReason.CORRUPT


def test_twelve_bit_jpeg_says_that_its_encoding_is_not_read(grey: Array) -> None:
    data = bytearray(saved(grey, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = 0xC1, 12
    assert reason_of(bytes(data)) == RejectReason.UNSUPPORTED_ENCODING


def test_frames_that_do_not_exist_are_a_mistake_of_the_caller(grey: Array) -> None:
    with pytest.raises(IndexError, match="frame 1 of 1"):
        open_image(saved(grey, "PNG")).pixels(1)


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [("cxr-kermany", "**/*.jpeg"), ("ct-iqothnccd", "*/*.jpg"), ("us-busi", "**/*.png")],
)
def test_real_pictures_equal_pillow(shared_data: Path, folder: str, pattern: str) -> None:
    paths = sorted((shared_data / folder).glob(pattern))
    assert len(paths) > 300
    for path in paths[:: len(paths) // 60]:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            mode = "L" if image.mode in ("1", "L") else "RGB"
            expected = np.asarray(image.convert(mode))
        np.testing.assert_array_equal(decoded(data), expected, err_msg=path.name)
