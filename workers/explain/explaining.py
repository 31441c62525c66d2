"""The shards of a run that explains: from source bytes to overlays and what they lie on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from schemas.bundle import CONFIG_FILE, WEIGHTS_FILE, BundleConfig, check_files, parse_config
from schemas.errors import RejectedImage
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.rejects import reject_row
from schemas.tables import rows_of
from workers.explain.gradcam import HeatMaps, Method, heat_maps, scaled
from workers.explain.layers import find_layer
from workers.explain.mapping import Mask, Placement
from workers.explain.overlay import Canvas, captioned, draw, encode, make_canvas
from workers.explain.pointing import Finding, find
from workers.explain.regions import read_region
from workers.explain.summary import FIGURES, STAGED
from workers.models.classifier.heads import bundle_network
from workers.models.classifier.outputs import probabilities
from workers.pixels.colour import grey
from workers.pixels.pixels import Pixels
from workers.pixels.recipe import prepare, to_uint8
from workers.pixels.steps import DECODER, Recipe
from workers.reading import FrameReader
from workers.scoring.cuda_forward import full_float32
from workers.scoring.passing import check_planned

ReadFiles = Callable[[Mapping[str, str]], Mapping[str, Blob]]
"""Reads files of uri and etag: the masks of an image."""

_CPU_BATCH, _GPU_BATCH = 8, 32


@dataclass(frozen=True)
class _Seen:
    """An image ready to be explained."""

    row: Mapping[str, Any]
    input_CHW: NDArray[np.uint8]
    placement: Placement
    region_HW: Mask | None
    canvas: Canvas


@dataclass
class Network:
    """A bundle's network, and the layer of it that is watched."""

    whole: nn.Module
    """From uint8 pixels to outputs whose softmax are the probabilities."""
    layer_name: str
    layer: nn.Module
    config: BundleConfig
    device: str
    batch: int = _CPU_BATCH
    """Images computed at once; halved for good where a GPU has no room for them."""

    def explain(
        self, images_NCHW: NDArray[np.uint8], targets: Sequence[str], method: Method
    ) -> HeatMaps:
        """The heat maps of one class for each of at least one image."""
        places = [self.config.classes.index(one) for one in targets]
        made: list[HeatMaps] = []
        start = 0
        while start < len(places):
            part = slice(start, start + self.batch)
            try:
                with full_float32():
                    pixels_NCHW = torch.from_numpy(images_NCHW[part]).to(self.device)
                    made.append(
                        heat_maps(self.whole, self.layer, pixels_NCHW, places[part], method)
                    )
            except torch.cuda.OutOfMemoryError:
                if self.batch == 1:
                    raise
                self.batch //= 2
                continue
            start += self.batch
        return HeatMaps(
            np.concatenate([one.heat_Nhw for one in made]),
            np.concatenate([one.outputs_NK for one in made]),
        )


def load_network(
    files: Mapping[str, bytes], layer: str | None = None, device: str = "cpu"
) -> Network:
    """Load a bundle's network and find the layer to watch.

    ``files``: the bundle's `config.json` and weights.

    Raises:
        BundleError: when files are missing or damaged, or there is no such layer.
    """
    config = parse_config(files[CONFIG_FILE])
    check_files(config, files, (WEIGHTS_FILE,))
    whole, network = bundle_network(config, files[WEIGHTS_FILE])
    whole.requires_grad_(False)
    size = config.preprocessing.size_px
    name = find_layer(network, torch.zeros(1, config.preprocessing.channels, size, size), layer)
    watched = network.get_submodule(name)
    return Network(whole.to(device), name, watched, config, device, _batch_of(device))


def _batch_of(device: str) -> int:
    return _GPU_BATCH if device.startswith("cuda") else _CPU_BATCH


def load(
    params: Mapping[str, Any], files: Mapping[str, bytes], read_files: ReadFiles
) -> ShardFunction:
    """Make a bundle ready to explain.

    ``params``: ``model_id``, ``method``, ``opacity``, ``region_source``, ``folder`` (where overlays
    lie below the lake), perhaps ``layer``, ``device`` and ``threads``.

    Raises:
        BundleError: when the bundle is damaged or not the one that was planned.
    """
    device = str(params.get("device", "cpu"))
    if device == "cpu":
        torch.set_num_threads(int(params.get("threads", 1)))
    network = load_network(files, params.get("layer"), device)
    check_planned(params, network.config)
    return Explainer(network, params, read_files)


@dataclass(frozen=True)
class Explainer:
    """Explains the images of shards."""

    network: Network
    params: Mapping[str, Any]
    read_files: ReadFiles

    def __call__(self, rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        """Explain ``rows``, whose columns `jobs.explain` describes."""
        made: list[dict[str, object]] = []
        rejects: list[dict[str, object]] = []
        files: dict[str, bytes] = {}
        for batch in self._batches(rows, blobs, rejects):
            images_NCHW = np.stack([seen.input_CHW for seen in batch])
            targets = [str(seen.row["target"]) for seen in batch]
            maps = self.network.explain(images_NCHW, targets, self.params["method"])
            temperature = self.network.config.calibration.temperature
            scores_NK = probabilities(maps.outputs_NK, temperature)
            for seen, heat_hw, scores_K in zip(batch, maps.heat_Nhw, scores_NK, strict=True):
                score = float(scores_K[self.network.config.classes.index(seen.row["target"])])
                found = find(heat_hw, seen.placement, seen.region_HW)
                made.append(self._row(seen, found, score))
                files[str(seen.row["overlay"])] = self._picture(seen, heat_hw, found, score)
        explained = rows_of("explanations", made)
        tables = {
            "explanations": explained,
            "rejects": rows_of("rejects", rejects),
            STAGED: explained.select(FIGURES),
        }
        return ShardResult(tables, done=len(made), rejected=len(rejects), files=files)

    def _batches(
        self, rows: pa.Table, blobs: Sequence[Blob], rejects: list[dict[str, object]]
    ) -> Iterator[list[_Seen]]:
        reader, batch = FrameReader(), list[_Seen]()
        for row, blob in zip(rows.to_pylist(), blobs, strict=True):
            seen = reader.read(blob, row["frame"], self._reading(row))
            if isinstance(seen, RejectedImage):
                subject = f"{self.network.config.model_id}-{row['settings']}"
                rejects.append(reject_row(row, seen, stage="explain", subject=subject))
                continue
            batch.append(seen)
            if len(batch) >= self.network.batch:
                yield batch
                batch = []
        if batch:
            yield batch

    def _reading(self, row: Mapping[str, Any]) -> Callable[[Pixels], _Seen]:
        stated = Recipe.from_dict(self.network.config.preprocessing.recipe)
        # What a GPU decodes differs by a few grey levels, which no heat map shows.
        recipe = replace(stated, decoder=DECODER)

        def see(pixels: Pixels) -> _Seen:
            masks = self.read_files({one["uri"]: one["etag"] for one in row["masks"] or ()})
            region_HW = read_region(
                list(masks.values()), row["boxes"] or (), pixels.height, pixels.width
            )
            prepared = prepare(recipe, pixels)
            view = prepared.array
            place = Placement(prepared.geometry, recipe.size, pixels.height, pixels.width)
            return _Seen(
                row=row,
                input_CHW=view[None] if view.ndim == 2 else view.transpose(2, 0, 1),
                placement=place,
                region_HW=region_HW,
                canvas=make_canvas(grey(to_uint8(pixels, recipe.window)), region_HW),
            )

        return see

    def _row(self, seen: _Seen, found: Finding, score: float) -> dict[str, object]:
        folder = str(self.params["folder"])
        return {
            "image_id": seen.row["image_id"],
            "model_id": self.network.config.model_id,
            "method": self.params["method"],
            "target": seen.row["target"],
            "score": score,
            "layer": self.network.layer_name,
            "settings": seen.row["settings"],
            "overlay": f"{folder}/{seen.row['overlay']}",
            "region_source": None if seen.region_HW is None else self.params["region_source"],
            **asdict(found),
        }

    def _picture(
        self, seen: _Seen, heat_hw: NDArray[np.float32], found: Finding, score: float
    ) -> bytes:
        height, width = seen.canvas.grey_HW.shape
        heat_HW = scaled(seen.placement.heat_on_original(heat_hw, height, width))
        factor = width / seen.placement.width
        peak = None
        if found.peak_x is not None and found.peak_y is not None:
            peak = found.peak_x * factor, found.peak_y * factor
        picture = draw(seen.canvas, heat_HW, self.params["opacity"], peak)
        return encode(captioned(picture, _caption(seen.row, self.params["method"], found, score)))


def _caption(row: Mapping[str, Any], method: str, found: Finding, score: float) -> tuple[str, ...]:
    """What an overlay tells below itself; nothing of the patient."""
    first = f"{method}: {row['target']} {score:.2f}"
    if row["actual"] is not None:
        first += f", labelled {row['actual']}"
    if found.energy_inside is None or found.region_share is None:
        return (first,)
    hit = "hit" if found.pointing_hit else "miss"
    inside = f"{found.energy_inside:.0%} inside, by chance {found.region_share:.0%}, {hit}"
    return first, inside
