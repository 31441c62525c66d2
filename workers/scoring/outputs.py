"""A network's raw outputs: which images have some that mean anything; no torch in here."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.scoring.forward import Outputs


def find_usable(outputs_NR: Outputs) -> NDArray[np.bool_]:
    """Whether all raw outputs of an image are finite numbers, by image (N)."""
    return np.asarray(np.isfinite(outputs_NR).all(axis=1))


def reject_unusable(
    places: Sequence[int], usable_N: NDArray[np.bool_]
) -> list[tuple[int, RejectedImage]]:
    """Rejects of the images (their places in the shard) whose outputs are no finite numbers.

    NaN or infinite scores would pass for scores in every query; weights that broke, or half
    precision that ran over, make them.
    """
    why = "the model's outputs are no finite numbers"
    return [
        (place, RejectedImage(RejectReason.FAILED, why))
        for place, usable in zip(places, usable_N, strict=True)
        if not usable
    ]
