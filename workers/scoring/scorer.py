"""Scoring one shard: from a network's raw outputs to rows; no torch in here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.bundle import BundleConfig
from schemas.plan import Blob, ShardFunction, ShardResult
from workers.models.classifier.outputs import prediction_rows, probabilities
from workers.scoring.forward import Batched, Outputs
from workers.scoring.passing import Passage, check_planned, decode_ahead, scored_columns


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
        passed = Passage(self.config, self.network, "score", self.ahead)(rows, blobs)
        scores_NC = self._probabilities(passed.outputs)
        columns = scored_columns(self.config, self.backend, self.scored_at)
        predictions = prediction_rows(passed.image_ids, scores_NC, columns)
        return ShardResult(
            {"predictions": predictions, "rejects": passed.rejects},
            done=len(passed.image_ids),
            rejected=passed.rejects.num_rows,
        )

    def _probabilities(self, outputs: list[Outputs]) -> Outputs:
        if not outputs:
            return np.zeros((0, len(self.config.classes)), np.float32)
        return probabilities(np.concatenate(outputs), self.config.calibration.temperature)


def make_scorer(
    params: Mapping[str, Any], config: BundleConfig, network: Batched, backend: str
) -> ShardFunction:
    """Make a bundle's network ready to score shards.

    ``params``: ``model_id`` and ``scored_at``.

    Raises:
        BundleError: when the bundle is not the model the plan names.
    """
    check_planned(params, config)
    return Scorer(config, network, backend, str(params["scored_at"]), decode_ahead(backend))
