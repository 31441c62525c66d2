"""Scoring one shard: decode, compute in fixed batches, write rows; no torch in here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.bundle import BACKENDS, BundleConfig
from schemas.errors import BundleError, RejectedImage
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.rejects import reject_row
from schemas.tables import rows_of
from workers.models.classifier.outputs import prediction_rows, probabilities
from workers.prefetch import ahead
from workers.reading import Image, Preparer
from workers.scoring.forward import Batched, Outputs, slices

AHEAD = 2
"""Batches decoded while a GPU works on one. On a CPU decoding and the network share one core, and a
thread between them costs 1 % and gains nothing."""


@dataclass(frozen=True)
class Scorer:
    """A bundle made ready: the network, and what its outputs mean."""

    config: BundleConfig
    network: Batched
    backend: str
    scored_at: str
    """ISO 8601 in UTC: when the run began."""
    ahead: int = 0
    """Batches decoded on a thread while the device works."""

    def __call__(self, rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        """Score the images of ``rows`` (columns ``image_id``, ``uri``, ``etag``, ``frame``)."""
        ids: list[str] = rows.column("image_id").to_pylist()
        scored: list[str] = []
        outputs: list[Outputs] = []
        rejects: list[tuple[int, RejectedImage]] = []
        batches = self._decoded(rows, blobs)
        for start, images in ahead(batches, self.ahead) if self.ahead else batches:
            good: list[Image] = []
            for offset, image in enumerate(images):
                if isinstance(image, RejectedImage):
                    rejects.append((start + offset, image))
                    continue
                good.append(image)
                scored.append(ids[start + offset])
            if good:
                outputs.append(self.network.outputs(np.stack(good)))
        predictions = prediction_rows(scored, self._probabilities(outputs), self._constants())
        tables = {"predictions": predictions, "rejects": self._reject_rows(rows, rejects)}
        return ShardResult(tables, done=len(scored), rejected=len(rejects))

    def _decoded(
        self, rows: pa.Table, blobs: Sequence[Blob]
    ) -> Iterator[tuple[int, list[Image | RejectedImage]]]:
        preparer = Preparer(self.config.preprocessing.recipe)
        frames = rows.column("frame").to_pylist()
        for part in slices(rows.num_rows, self.network.batch):
            yield part.start, preparer.prepare_all(blobs[part], frames[part])

    def _probabilities(self, outputs: list[Outputs]) -> Outputs:
        if not outputs:
            return np.zeros((0, len(self.config.classes)), np.float32)
        return probabilities(np.concatenate(outputs), self.config.calibration.temperature)

    def _constants(self) -> dict[str, object]:
        stamp = pa.scalar(self.scored_at).cast(pa.timestamp("us", tz="UTC")).as_py()
        return {
            "model_id": self.config.model_id,
            "backend": self.backend,
            "scored_at": stamp,
        }

    def _reject_rows(
        self, rows: pa.Table, rejects: Sequence[tuple[int, RejectedImage]]
    ) -> pa.Table:
        taken = rows.take(pa.array([row for row, _ in rejects], pa.int64()))
        return rows_of(
            "rejects",
            [
                reject_row(row, reject, stage="score", subject=self.config.model_id)
                for row, (_, reject) in zip(taken.to_pylist(), rejects, strict=True)
            ],
        )


def make_scorer(
    params: Mapping[str, Any], config: BundleConfig, network: Batched, backend: str
) -> ShardFunction:
    """Make a bundle's network ready to score shards.

    ``params``: ``model_id`` and ``scored_at``.

    Raises:
        BundleError: when the bundle is not the model the plan names.
    """
    if config.model_id != params["model_id"]:
        raise BundleError(
            "The bundle is another model than planned",
            where=config.name,
            got=config.model_id,
            remedy=f"the plan names {params['model_id']}",
        )
    if config.family != "classifier":
        raise BundleError(
            "There is no scorer for this family", where=config.name, got=config.family
        )
    depth = AHEAD if BACKENDS[backend].device == "cuda" else 0
    return Scorer(config, network, backend, str(params["scored_at"]), depth)
