"""Preparing images on a GPU: nvJPEG decodes what it can, the CPU decodes the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import RaywardError, RejectedImage
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.reasons import RejectReason
from workers.pixels.device_steps import decode_on, device_jpeg, fitted, try_decoder
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import Geometry, Prepared, place, to_uint8
from workers.pixels.steps import NVJPEG_DECODER, Recipe
from workers.preparing import shard_function
from workers.reading import FrameReader

BATCH = 32
"""Images decoded and resized at once; fewer where the device has no room for them."""

Outcome = Prepared | RejectedImage


def load(params: Mapping[str, Any], device: str = "cuda") -> ShardFunction:
    """Prepare the shards of a run on a GPU; ``params`` as `workers.preparing.shard_function`.

    Raises:
        RaywardError: if this process has no GPU, or nvJPEG does not work on it.
    """
    preparer = DevicePreparer(Recipe.from_dict(params["recipe"]), device, FrameReader())
    compute = shard_function(params, preparer.prepare_all)

    def prepare_shard(rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        before = preparer.refused
        result = compute(rows, blobs)
        refused = preparer.refused - before
        told = {"JPEG files nvJPEG refused": refused} if refused else {}
        return replace(result, facts={**result.facts, **told})

    return prepare_shard


class DevicePreparer:
    """Carries out a recipe on a device.

    Steps, geometry and results are those of `workers.pixels.recipe.prepare`. Grey levels differ
    from there by what the decoders differ, and by at most 1 from rounding.
    """

    def __init__(
        self, recipe: Recipe, device: str, reader: FrameReader, *, batch: int = BATCH
    ) -> None:
        """Make ready; ``device`` is ``cuda``, or ``cpu`` to try the same steps without a GPU.

        Raises:
            RaywardError: if this process has no such device, or it decodes nothing.
            ValueError: if the recipe is for another decoder.
        """
        if recipe.decoder != NVJPEG_DECODER:
            raise ValueError(f"recipe: this prepares {NVJPEG_DECODER}: got {recipe.decoder}")
        self._device = torch.device(device)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise RaywardError(
                "Decoding with nvJPEG needs a GPU",
                where="preprocess.decoder: nvjpeg",
                got="a process without a CUDA device",
                remedy="set execution.gpus_per_worker to 1 (or to a share of a GPU, such as 0.5) "
                "and run it where there are GPUs, or set preprocess.decoder: cpu",
            )
        try_decoder(self._device)
        self._recipe = recipe
        self._reader = reader
        self._batch = batch
        self.refused = 0
        """JPEG files so far that the device did not decode and the CPU looked at."""

    def prepare_all(self, blobs: Sequence[Blob], frames: Sequence[int]) -> list[Outcome]:
        """Every image in order, or why there is none; never raises for an image.

        Where the device has no room for a batch, it is halved until the end of this call.
        """
        results: list[Outcome] = []
        batch = self._batch
        while len(results) < len(blobs):
            part = slice(len(results), len(results) + batch)
            found = self._try(blobs[part], frames[part])
            if found is not None:
                results += found
            elif batch > 1:
                batch //= 2
            else:
                results.append(RejectedImage(RejectReason.OUT_OF_MEMORY, "on the GPU"))
        return results

    def _try(self, blobs: Sequence[Blob], frames: Sequence[int]) -> list[Outcome] | None:
        """Prepare a batch; None if the device has no room for it."""
        try:
            images, refused = self._decode(blobs, frames)
            results = self._prepare(images)
        except torch.OutOfMemoryError:
            pass
        else:
            self.refused += refused
            return results
        # Only here, where the traceback no longer holds the tensors of the failed batch.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _decode(
        self, blobs: Sequence[Blob], frames: Sequence[int]
    ) -> tuple[list[Tensor | RejectedImage], int]:
        """Decode to uint8 (C, H, W) on the device; count the JPEG files that it refused."""
        jpegs = {}
        for index, (blob, frame) in enumerate(zip(blobs, frames, strict=True)):
            jpeg = device_jpeg(blob) if isinstance(blob, bytes) and frame == 0 else None
            if jpeg is not None:
                jpegs[index] = jpeg
        decoded = dict(zip(jpegs, decode_on(self._device, list(jpegs.values())), strict=True))
        images: list[Tensor | RejectedImage] = []
        for index, (blob, frame) in enumerate(zip(blobs, frames, strict=True)):
            image = decoded.get(index)
            images.append(self._read(blob, frame) if image is None else self._windowed(image))
        return images, sum(image is None for image in decoded.values())

    def _read(self, blob: Blob, frame: int) -> Tensor | RejectedImage:
        """Decode on the CPU, and copy the 8-bit view to the device."""
        view = self._reader.read(blob, frame, self._view)
        if isinstance(view, RejectedImage):
            return view
        return torch.from_numpy(view).to(self._device)

    def _view(self, pixels: Pixels) -> NDArray[np.uint8]:
        view = np.atleast_3d(to_uint8(pixels, self._recipe.window))
        # A copy: what a decoder hands out may be read-only or turned.
        return np.array(view.transpose(2, 0, 1), order="C")

    def _windowed(self, image_CHW: Tensor) -> Tensor:
        """Window a grey image, where the recipe has a window, through `to_uint8`."""
        if self._recipe.window is None or image_CHW.shape[0] == 3:
            return image_CHW
        all_levels = np.arange(256, dtype=np.uint8)[None]
        table = to_uint8(Pixels(all_levels, 8, None, False, None), self._recipe.window)
        levels = torch.from_numpy(table[0]).to(self._device)
        return levels[image_CHW.int()]

    def _prepare(self, images: Sequence[Tensor | RejectedImage]) -> list[Outcome]:
        """Carry out the steps after decoding, images of one size together."""
        sizes: dict[torch.Size, list[tuple[int, Tensor]]] = {}
        for index, image in enumerate(images):
            if isinstance(image, Tensor):
                sizes.setdefault(image.shape, []).append((index, image))
        prepared: dict[int, Prepared] = {}
        for (_, height, width), group in sizes.items():
            stack = fitted(self._recipe, torch.stack([image for _, image in group]))
            arrays = np.ascontiguousarray(stack.permute(0, 2, 3, 1).cpu().numpy())
            geometry = self._geometry(height, width)
            for (index, _), array in zip(group, arrays, strict=True):
                view = array[..., 0] if self._recipe.channels == 1 else array
                prepared[index] = Prepared(view, geometry, bar_share=0.0)
        return [
            image if isinstance(image, RejectedImage) else prepared[index]
            for index, image in enumerate(images)
        ]

    def _geometry(self, height: int, width: int) -> Geometry:
        left, top, new_width, new_height = place(self._recipe, height, width)
        return Geometry(new_width / width, new_height / height, float(left), float(top))
