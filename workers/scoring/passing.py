"""One shard through a network: decode, compute in fixed batches, note what can't be used."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.bundle import BACKENDS, BundleConfig
from schemas.errors import BundleError, RejectedImage
from schemas.plan import Blob
from schemas.rejects import reject_row
from schemas.tables import rows_of
from schemas.tables.columns import TIMESTAMP
from workers.prefetch import ahead
from workers.reading import Image, Preparer
from workers.scoring.forward import Batched, Outputs, slices
from workers.scoring.outputs import find_usable, reject_unusable

AHEAD = 2
"""Batches decoded while a GPU works on one. On a CPU decoding and the network share one core, and a
thread between them costs 1 % and gains nothing."""


@dataclass(frozen=True)
class Passed:
    """What a network made of a shard."""

    image_ids: list[str]
    """Images with outputs, in their order."""
    outputs: list[Outputs]
    """Raw outputs (B, K) by batch."""
    rejects: pa.Table
    """Rows of `rejects`."""


@dataclass(frozen=True)
class Passage:
    """A bundle's network and what it takes."""

    config: BundleConfig
    network: Batched
    stage: str
    """The kind, as it stands in rejects."""
    ahead: int = 0
    """Batches decoded on a thread while the device works."""

    def __call__(self, rows: pa.Table, blobs: Sequence[Blob]) -> Passed:
        """Compute the images of ``rows`` (columns ``image_id``, ``uri``, ``etag``, ``frame``)."""
        ids: list[str] = rows.column("image_id").to_pylist()
        computed: list[str] = []
        outputs: list[Outputs] = []
        rejects: list[tuple[int, RejectedImage]] = []
        batches = self._decoded(rows, blobs)
        for start, images in ahead(batches, self.ahead) if self.ahead else batches:
            good: list[Image] = []
            places: list[int] = []
            for place, image in enumerate(images, start):
                if isinstance(image, RejectedImage):
                    rejects.append((place, image))
                    continue
                good.append(image)
                places.append(place)
            if good:
                made_BK = self.network.outputs(np.stack(good))
                usable_B = find_usable(made_BK)
                rejects += reject_unusable(places, usable_B)
                computed += [ids[places[row]] for row in np.flatnonzero(usable_B)]
                outputs.append(made_BK[usable_B])
        subject = self.config.model_id
        return Passed(
            computed, outputs, reject_rows(rows, rejects, stage=self.stage, subject=subject)
        )

    def _decoded(
        self, rows: pa.Table, blobs: Sequence[Blob]
    ) -> Iterator[tuple[int, list[Image | RejectedImage]]]:
        preparer = Preparer(self.config.preprocessing.recipe)
        frames = rows.column("frame").to_pylist()
        for part in slices(rows.num_rows, self.network.batch):
            yield part.start, preparer.prepare_all(blobs[part], frames[part])


def reject_rows(
    rows: pa.Table, rejects: Sequence[tuple[int, RejectedImage]], *, stage: str, subject: str
) -> pa.Table:
    """Rows of `rejects` for some rows of a shard, each with its reason."""
    taken = rows.take(pa.array([row for row, _ in rejects], pa.int64()))
    return rows_of(
        "rejects",
        [
            reject_row(row, reject, stage=stage, subject=subject)
            for row, (_, reject) in zip(taken.to_pylist(), rejects, strict=True)
        ],
    )


def decode_ahead(backend: str) -> int:
    """Batches to decode while a backend's device works on one."""
    return AHEAD if BACKENDS[backend].device == "cuda" else 0


def scored_columns(config: BundleConfig, backend: str, scored_at: str) -> dict[str, object]:
    """The columns of `predictions` that are equal in all rows; ``scored_at`` is ISO 8601 in UTC."""
    return {
        "model_id": config.model_id,
        "backend": backend,
        "scored_at": pa.scalar(scored_at).cast(TIMESTAMP).as_py(),
    }


def check_planned(
    params: Mapping[str, Any], config: BundleConfig, families: Collection[str] = ("classifier",)
) -> None:
    """Check that a bundle is the model that the plan names, and of one of the families.

    Raises:
        BundleError: when it is not.
    """
    if config.model_id != params["model_id"]:
        raise BundleError(
            "The bundle is another model than planned",
            where=config.name,
            got=config.model_id,
            remedy=f"the plan names {params['model_id']}",
        )
    if config.family not in families:
        raise BundleError(
            "There is no scorer for this family", where=config.name, got=config.family
        )
