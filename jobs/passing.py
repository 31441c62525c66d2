"""What kinds share that pass every image through a model once: which images, and how."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from jobs.pending import Wanted
from jobs.prepared import by_file, where_prepared
from jobs.rows import IN_PARTS, count_folds, require_split
from schemas.protocols import Store
from schemas.specs.embed import EmbedSpec
from schemas.specs.score import ScoreSpec

PassSpec = EmbedSpec | ScoreSpec
"""A job that passes images through a bundle's network."""

Bundle = Mapping[str, Any]
"""Its row of `models`, and the ``uri``."""


def wanted_by(spec: PassSpec, store: Store, bundle: Bundle, table: str) -> Wanted:
    """The images without a row of ``table`` by this model, of the data set or parts of its split.

    Raises:
        SplitError: if the parts of the split have no images, or it has no such fold.
    """
    parameters: dict[str, Any] = {"model_id": bundle["model_id"]}
    if spec.split is not None:
        fold = spec.fold if isinstance(spec, ScoreSpec) else None
        if fold is None:
            require_split(store, spec.dataset, spec.split, spec.parts)
        else:
            count_folds(store, spec.dataset, spec.split, fold)
        parameters |= {"split": spec.split, "parts": list(spec.parts), "fold": fold}
    return Wanted(
        dataset=spec.dataset,
        images=spec.images,
        has_result=f"image_id IN (SELECT image_id FROM {table} WHERE model_id = $model_id)",
        stage=spec.kind,
        subjects=(bundle["model_id"],),
        retry=spec.retry_rejects,
        parameters=parameters,
        among=IN_PARTS if spec.split is not None else "true",
    )


def with_prepared(spec: PassSpec, rows: pa.Table, bundle: Bundle, store: Store) -> pa.Table:
    """The rows with where their pixels lie prepared for the model, if any are taken from there."""
    if not rows.num_rows or not spec.use_prepared:
        return rows
    return by_file(where_prepared(rows, bundle["recipe"], store))


def pass_params(spec: PassSpec, bundle: Bundle) -> dict[str, Any]:
    """Parameters of the work: the bundle, the device, and the images of a pass if it is given."""
    stated = {} if spec.batch_size is None else {"batch": spec.batch_size}
    return stated | {
        "bundle": bundle["uri"],
        "model_id": bundle["model_id"],
        "device": "cuda" if spec.execution.gpus_per_worker else "cpu",
    }
