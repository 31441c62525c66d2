"""From a classifier's raw outputs to probabilities, labels and rows; NumPy and Arrow only."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.bundle import OperatingPoint
from schemas.tables import TABLES, rows_of

Floats = NDArray[np.float32]


def probabilities(logits_NC: Floats, temperature: float = 1.0) -> Floats:
    """Softmax of ``logits / temperature``, computed in double precision, as float32 (N, C)."""
    scaled_NC = logits_NC.astype(np.float64) / temperature
    scaled_NC -= scaled_NC.max(axis=1, keepdims=True)
    exponent_NC = np.exp(scaled_NC)
    scores_NC: Floats = (exponent_NC / exponent_NC.sum(axis=1, keepdims=True)).astype(np.float32)
    return scores_NC


def predicted(
    scores_NC: Floats, classes: Sequence[str], point: OperatingPoint | None
) -> NDArray[np.int64]:
    """The index of each image's label: at the operating point, or the likeliest class."""
    if point is None or len(classes) != 2:
        likeliest_N: NDArray[np.int64] = scores_NC.argmax(axis=1)
        return likeliest_N
    positive = list(classes).index(point.positive)
    # The comparison is made in double precision, as a query over the table makes it.
    chosen_N = scores_NC[:, positive].astype(np.float64) >= point.threshold
    return np.where(chosen_N, positive, 1 - positive)


def prediction_rows(
    image_ids: Sequence[str], scores_NC: Floats, constants: dict[str, object]
) -> pa.Table:
    """Rows of `predictions` without ``run_id``; ``constants`` holds the columns equal in all."""
    count, classes = scores_NC.shape if len(image_ids) else (0, 1)
    if count == 0:
        return rows_of("predictions", [])
    offsets = pa.array(np.arange(0, (count + 1) * classes, classes, dtype=np.int32))
    schema = TABLES["predictions"].schema
    columns: dict[str, pa.Array] = {
        "image_id": pa.array(image_ids, pa.string()),
        "scores": pa.ListArray.from_arrays(offsets, pa.array(scores_NC.reshape(-1), pa.float32())),
        "score": pa.array(scores_NC.max(axis=1), pa.float32()),
    }
    for name, value in constants.items():
        columns[name] = pa.array([value] * count, schema.field(name).type)
    wanted = [field for field in schema if field.name != "run_id"]
    return pa.table([columns[field.name] for field in wanted], schema=pa.schema(wanted))
