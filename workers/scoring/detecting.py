"""Scoring a shard with a detector: boxes in pixels of the originals, a row for every image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.bundle import BundleConfig
from schemas.errors import BundleError, RejectedImage
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.tables import TABLES, rows_of
from workers.detection.boxes import Detections, to_sizes
from workers.detection.families import FAMILIES, family_of
from workers.detection.maps import Reading, to_original
from workers.models.classifier.outputs import prediction_rows
from workers.prefetch import ahead
from workers.reading import Placed, Preparer
from workers.scoring.forward import Batched, Outputs, slices
from workers.scoring.outputs import find_usable, reject_unusable
from workers.scoring.passing import check_planned, decode_ahead, reject_rows, scored_columns


@dataclass(frozen=True)
class DetectorScorer:
    """A detector's bundle made ready: the network, and what its maps mean."""

    config: BundleConfig
    network: Batched
    reading: Reading
    backend: str
    scored_at: str
    """ISO 8601 in UTC: when the run began."""
    ahead: int = 0
    """Batches decoded on a thread while the device works."""

    def __call__(self, rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        """Score the images of ``rows``.

        Columns ``image_id``, ``uri``, ``etag``, ``frame``, and ``width`` and ``height`` of the
        original, upright, where they are known: boxes are cut at its edges.
        """
        ids: list[str] = rows.column("image_id").to_pylist()
        sizes = _sizes(rows)
        computed: list[str] = []
        found: list[Detections] = []
        rejects: list[tuple[int, RejectedImage]] = []
        batches = self._placed(rows, blobs)
        for start, images in ahead(batches, self.ahead) if self.ahead else batches:
            good: list[tuple[int, Placed]] = []
            for row, image in enumerate(images, start):
                if isinstance(image, RejectedImage):
                    rejects.append((row, image))
                else:
                    good.append((row, image))
            if not good:
                continue
            outputs_NR = self.network.outputs(np.stack([one.pixels_CHW for _, one in good]))
            usable_N = find_usable(outputs_NR)
            rejects += reject_unusable([row for row, _ in good], usable_N)
            kept = [good[place] for place in np.flatnonzero(usable_N)]
            computed += [ids[row] for row, _ in kept]
            found += self._read(outputs_NR[usable_N], kept, [sizes[row] for row, _ in kept])
        columns = scored_columns(self.config, self.backend, self.scored_at)
        return ShardResult(
            {
                "predictions": prediction_rows(computed, self._scores(found), columns),
                "detections": detection_rows(computed, found, self.config),
                "rejects": reject_rows(rows, rejects, stage="score", subject=self.config.model_id),
            },
            done=len(computed),
            rejected=len(rejects),
        )

    def _placed(
        self, rows: pa.Table, blobs: Sequence[Blob]
    ) -> Iterator[tuple[int, list[Placed | RejectedImage]]]:
        preparer = Preparer(self.config.preprocessing.recipe)
        frames = rows.column("frame").to_pylist()
        for part in slices(rows.num_rows, self.network.batch):
            pairs = zip(blobs[part], frames[part], strict=True)
            yield part.start, [preparer.place(blob, frame) for blob, frame in pairs]

    def _read(
        self,
        outputs_NR: Outputs,
        images: Sequence[tuple[int, Placed]],
        sizes: Sequence[tuple[int, int] | None],
    ) -> list[Detections]:
        if not images:
            return []
        detections = self.reading.detections(outputs_NR)
        return [
            to_original(one, image.geometry, size)
            for one, (_, image), size in zip(detections, images, sizes, strict=True)
        ]

    def _scores(self, found: Sequence[Detections]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The highest confidence of each class in each image, 0 where there is none."""
        scores_NC = np.zeros((len(found), len(self.config.classes)), np.float32)
        for scores_C, one in zip(scores_NC, found, strict=True):
            np.maximum.at(scores_C, one.categories_D, one.scores_D)
        return scores_NC


def detection_rows(
    image_ids: Sequence[str], found: Sequence[Detections], config: BundleConfig
) -> pa.Table:
    """Rows of `detections` without ``run_id``; boxes in px of the originals."""
    counts = [len(one) for one in found]
    if not sum(counts):
        return rows_of("detections", [])
    boxes_R4 = np.concatenate([to_sizes(one.corners_D4) for one in found])
    categories_R = np.concatenate([one.categories_D for one in found])
    columns = {
        "image_id": pa.array(np.repeat(np.asarray(image_ids, object), counts), pa.string()),
        "model_id": pa.array([config.model_id] * len(boxes_R4), pa.string()),
        "category": pa.array(np.asarray(config.classes, object)[categories_R], pa.string()),
        "score": pa.array(np.concatenate([one.scores_D for one in found]), pa.float32()),
        **{
            name: pa.array(np.ascontiguousarray(boxes_R4[:, place]), pa.float32())
            for place, name in enumerate(("x", "y", "w", "h"))
        },
    }
    wanted = [field for field in TABLES["detections"].schema if field.name != "run_id"]
    return pa.table([columns[field.name] for field in wanted], schema=pa.schema(wanted))


def make_detector_scorer(
    params: Mapping[str, Any], config: BundleConfig, network: Batched, backend: str
) -> ShardFunction:
    """Make a detector's network, which ends in flat maps, ready to score shards.

    ``params``: ``model_id`` and ``scored_at``.

    Raises:
        BundleError: when the bundle is not the model the plan names, or no detector.
    """
    check_planned(params, config, FAMILIES)
    if config.detection is None:
        raise BundleError("The detector's bundle has no detection settings", where=config.name)
    reading = Reading(family_of(config.family), config.detection)
    scored_at = str(params["scored_at"])
    return DetectorScorer(config, network, reading, backend, scored_at, decode_ahead(backend))


def _sizes(rows: pa.Table) -> list[tuple[int, int] | None]:
    if "width" not in rows.column_names:
        return [None] * rows.num_rows
    pairs = zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True)
    return [None if width is None or height is None else (width, height) for width, height in pairs]
