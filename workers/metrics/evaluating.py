"""The work of an evaluation: figures by part from scores and labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.bundle import OperatingPoint
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.tables import rows_of
from workers.metrics.classification import Figure, Scored, classification_figures

SHOWN = ("auc", "accuracy")
"""Figures the user is told at the job's end."""


def load(params: Mapping[str, Any]) -> ShardFunction:
    """Make the function that evaluates one model on all its scored images at once.

    ``params``: ``classes``, ``operating_point`` (or null), ``parts``, ``bootstrap``, ``seed``, and
    ``columns``, the columns of `metrics` equal in all rows. Rows have the columns ``image_id``,
    ``part``, ``label``, ``scores`` and ``group`` (the patient).
    """
    classes = tuple(params["classes"])
    stated = params["operating_point"]
    point = OperatingPoint.model_validate(stated) if stated else None

    def evaluate(rows: pa.Table, _blobs: Sequence[Blob]) -> ShardResult:
        found: list[dict[str, object]] = []
        facts: dict[str, float] = {}
        for part in params["parts"]:
            taken = rows.filter(pc.equal(rows.column("part"), part))
            if not taken.num_rows:
                continue
            figures = classification_figures(
                _scored(taken, classes),
                point,
                resamples=int(params["bootstrap"]),
                seed=int(params["seed"]),
            )
            found += [_row(figure, params["columns"] | {"part": part}) for figure in figures]
            facts |= {
                f"{part} {figure.metric}": round(figure.value, 4)
                for figure in figures
                if figure.metric in SHOWN and figure.category is None
            }
        tables = {"metrics": rows_of("metrics", found)}
        return ShardResult(tables, done=rows.num_rows, rejected=0, facts=facts)

    return evaluate


def _scored(rows: pa.Table, classes: tuple[str, ...]) -> Scored:
    index = {name: position for position, name in enumerate(classes)}
    flat = rows.column("scores").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Scored(
        classes,
        np.asarray([index[name] for name in rows.column("label").to_pylist()], np.int64),
        flat.reshape(-1, len(classes)).astype(np.float32),
        rows.column("group").to_pylist(),
    )


def _row(figure: Figure, constants: Mapping[str, object]) -> dict[str, object]:
    low, high = figure.interval or (None, None)
    return {
        **constants,
        "metric": figure.metric,
        "category": figure.category,
        "value": figure.value,
        "ci_low": low,
        "ci_high": high,
        "n": figure.n,
    }
