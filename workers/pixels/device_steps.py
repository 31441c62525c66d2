"""The steps of a recipe on tensors, on a GPU or any other device: decode, turn, grey, resize.

Everything but nvJPEG is computed in a fixed order of plain additions and multiplications, so that
an image's pixels depend neither on the images it shares a batch with nor on the device.

Shapes: N images, C channels, H and W rows and columns, K neighbours that make one output pixel.
"""

import re
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from schemas.errors import RaywardError, RejectedImage
from workers.pixels.decode.guard import quiet
from workers.pixels.decode.jpeg import is_plain, read_header
from workers.pixels.decode.pillow import read_orientation
from workers.pixels.decode.sniff import sniff
from workers.pixels.decode.types import Limits
from workers.pixels.recipe import place
from workers.pixels.steps import Recipe

_LUMA = (9798, 19235, 3735)
"""ITU-R BT.601 weights of red, green and blue by 2^15, as OpenCV's 8-bit grey has them."""
_LUMA_BITS = 15

_NO_ROOM = re.compile(r"out of memory|: 5$", re.MULTILINE)
"""How a device's lack of memory reads in an error of nvJPEG: 5 is its ALLOCATOR_FAILURE."""

_ADOBE = re.compile(rb"\xff\xee.{2}Adobe.{6}(.)", re.DOTALL)
"""Adobe's segment; its last byte says what the samples are: 1 is YCbCr (ITU T.872 6.5.3)."""
_YCBCR = re.compile(rb"\xff[\xc0-\xc2]\x00\x11\x08.{4}\x03\x01.{2}\x02.{2}\x03", re.DOTALL)
"""A frame header of three components numbered 1, 2, 3: YCbCr by JFIF."""


@dataclass(frozen=True)
class DeviceJpeg:
    """A JPEG file that a device may decode."""

    data: bytes
    colour: bool
    """Three components, or one."""
    orientation: int
    """EXIF orientation, 1 to 8."""


def device_jpeg(data: bytes, limits: Limits | None = None) -> DeviceJpeg | None:
    """Return the file as one for the device, None for one that the CPU has to look at.

    The device gets complete 8-bit Huffman-coded files of grey or YCbCr samples within the limits:
    broken markers, missing ends, CMYK and RGB samples are the CPU's.
    """
    limits = limits or Limits()
    try:
        limits.check_bytes(len(data), "the file")
        header = read_header(data) if sniff(data) == "jpeg" else None
        if header is None or not is_plain(data, header):
            return None
        limits.check_frame(header.height, header.width, header.components)
    except RejectedImage:
        return None  # the CPU path says why
    colour = header.components == 3
    if colour and not _is_ycbcr(data[: header.scan_at]):
        return None
    orientation = read_orientation(data, "jpeg") if header.has_metadata else 1
    return DeviceJpeg(data, colour, orientation)


def _is_ycbcr(head: bytes) -> bool:
    """Whether three components are surely YCbCr."""
    adobe = _ADOBE.search(head)
    return _YCBCR.search(head) is not None and (adobe is None or adobe[1] == b"\x01")


def decode_on(device: torch.device, jpegs: list[DeviceJpeg]) -> list[Tensor | None]:
    """Decode files to upright uint8 (C, H, W) on the device, None for each that it refuses.

    A file that can't be decoded fails its batch, so a batch that fails is halved until the file
    stands alone. Raises torch.OutOfMemoryError if the device has no room for a batch.
    """
    found: list[Tensor | None] = [None] * len(jpegs)
    for colour in (False, True):
        chosen = [index for index, jpeg in enumerate(jpegs) if jpeg.colour == colour]
        mode = ImageReadMode.RGB if colour else ImageReadMode.GRAY
        decoded = _decode(device, [jpegs[index].data for index in chosen], mode)
        for index, image in zip(chosen, decoded, strict=True):
            if image is not None:
                found[index] = turned(image, jpegs[index].orientation)
    return found


def _decode(device: torch.device, files: list[bytes], mode: ImageReadMode) -> list[Tensor | None]:
    if not files:
        return []
    try:
        return list(_decode_batch(device, files, mode))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if _NO_ROOM.search(str(error)):
            raise torch.OutOfMemoryError(str(error)) from error
    if len(files) == 1:
        return [None]
    half = len(files) // 2
    return _decode(device, files[:half], mode) + _decode(device, files[half:], mode)


def _decode_batch(device: torch.device, files: list[bytes], mode: ImageReadMode) -> list[Tensor]:
    sources = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    # torchvision announces that its decoders will move to another package.
    with quiet():
        found: list[Tensor] = decode_jpeg(sources, mode=mode, device=device)
    return found


def try_decoder(device: torch.device) -> None:
    """Decode a picture that every decoder reads.

    Without it, a device that decodes nothing would refuse each file, and leave all to the CPU.

    Raises:
        RaywardError: if the device can't decode it.
    """
    _, sample = cv2.imencode(".jpg", np.full((16, 16), 128, np.uint8))
    try:
        _decode_batch(device, [sample.tobytes()], ImageReadMode.GRAY)
    except RuntimeError as error:
        raise RaywardError(
            "nvJPEG decodes nothing here",
            where=str(device),
            got=str(error).partition("\n")[0],
            remedy="look at `rayward doctor`: torch, torchvision and the driver must fit each "
            "other; or set preprocess.decoder: cpu",
        ) from error


def turned(image_CHW: Tensor, orientation: int) -> Tensor:
    """Turn an image upright (EXIF 2.32, tag 0x0112)."""
    flipped = {2: (2,), 3: (1, 2), 4: (1,), 6: (1,), 7: (1, 2), 8: (2,)}.get(orientation)
    image = image_CHW.flip(flipped) if flipped else image_CHW
    return image.transpose(1, 2) if orientation in {5, 6, 7, 8} else image


def luma(image_NCHW: Tensor) -> Tensor:
    """Return the grey levels (N, 1, H, W) of RGB uint8 images, equal to `colour.grey`."""
    red, green, blue = image_NCHW.int().split(1, dim=1)
    half = 1 << (_LUMA_BITS - 1)
    total: Tensor = red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2] + half
    return (total >> _LUMA_BITS).to(torch.uint8)


def fitted(recipe: Recipe, image_NCHW: Tensor) -> Tensor:
    """Grey and resize uint8 images of one size as the recipe says: (N, channels, size, size)."""
    if recipe.channels == 1 and image_NCHW.shape[1] == 3:
        image_NCHW = luma(image_NCHW)
    count, channels, height, width = image_NCHW.shape
    left, top, new_width, new_height = place(recipe, height, width)
    resized = resize(image_NCHW, new_height, new_width)
    canvas = resized.new_zeros((count, channels, recipe.size, recipe.size))
    canvas[:, :, top : top + new_height, left : left + new_width] = resized
    return canvas.expand(-1, recipe.channels, -1, -1)


def resize(image_NCHW: Tensor, height: int, width: int) -> Tensor:
    """Shrink uint8 images by averaging areas and enlarge them linearly, each axis on its own."""
    result = image_NCHW
    for dim, target in ((2, height), (3, width)):
        if result.shape[dim] != target:
            result = _resize_axis(result, dim, target)
    return result.round().to(torch.uint8)


def _resize_axis(image_NCHW: Tensor, dim: int, target: int) -> Tensor:
    """Resize along one axis into float32: the weighted sum of K neighbours, one after the other."""
    index_KT, weight_KT = neighbours(image_NCHW.shape[dim], target)
    indices = torch.from_numpy(index_KT).to(image_NCHW.device)
    shape = (-1, 1) if dim == 2 else (-1,)
    weights = torch.from_numpy(weight_KT).to(image_NCHW.device).reshape(len(index_KT), *shape)
    total = image_NCHW.index_select(dim, indices[0]) * weights[0]
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        total += image_NCHW.index_select(dim, index) * weight
    return total


def neighbours(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which of ``source`` pixels make each of ``target`` pixels, and with which weights.

    Indices int64 and weights float32, both (K, target); weights of a pixel add up to 1. Shrinking
    weighs a pixel by its share of the output pixel's area, enlarging by its distance from the
    output pixel's centre; at the edges the outermost pixel goes on.
    """
    ratio = source / target
    if target < source:
        start = np.arange(target) * ratio
        index = np.floor(start).astype(np.int64) + np.arange(int(np.ceil(ratio)) + 1)[:, None]
        overlap = np.minimum(index + 1, start + ratio) - np.maximum(index, start)
        weight = np.clip(overlap, 0, None) / ratio
    else:
        centre = (np.arange(target) + 0.5) * ratio - 0.5
        index = np.floor(centre).astype(np.int64) + np.arange(2)[:, None]
        weight = 1 - np.abs(index - centre)
    return np.clip(index, 0, source - 1), weight.astype(np.float32)
