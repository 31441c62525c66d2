"""Embedding shards: the right vectors, one row an image, no neighbour matters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from numpy.typing import NDArray

from schemas.bundle import CONFIG_FILE, OPENVINO_FP32, WEIGHTS_FILE, parse_config
from schemas.errors import BundleError, RejectedImage
from schemas.plan import Blob, ShardFunction
from schemas.reasons import RejectReason
from schemas.tables import TABLES
from tests.workers.scoring.conftest import picture
from tests.workers.scoring.test_scorers import _rows as rows_of_shard
from workers.reading import Preparer
from workers.scoring import embedder

Files = Mapping[str, bytes]


def _load(bundle: Files, **changes: Any) -> ShardFunction:
    config = parse_config(bundle[CONFIG_FILE])
    return embedder.load({"model_id": config.model_id, "batch": 8} | changes, bundle)


def _vectors(table: pa.Table) -> NDArray[np.float32]:
    return np.array(table["vector"].to_pylist(), np.float32)


def test_vectors_are_what_timm_gives_without_its_last_layer(bundle: Files, tmp_path: Path) -> None:
    for name, content in bundle.items():
        (tmp_path / name).write_bytes(content)
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0)
    config = parse_config(bundle[CONFIG_FILE])
    blobs = [picture(seed) for seed in range(11)]
    preparer = Preparer(config.preprocessing.recipe)
    pixels = np.stack([preparer.prepare(blob, 0) for blob in blobs])  # type: ignore[arg-type]
    with torch.inference_mode():
        expected = network.eval()((torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25).numpy()
    result = _load(bundle)(rows_of_shard(11), blobs)
    table = result.tables["embeddings"]
    assert _vectors(table).shape == expected.shape == (11, network.num_features)
    assert np.abs(_vectors(table) - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.5 * np.abs(expected).max()
    wanted = [field for field in TABLES["embeddings"].schema if field.name != "run_id"]
    assert table.schema.equals(pa.schema(wanted))
    assert table["image_id"].to_pylist() == rows_of_shard(11)["image_id"].to_pylist()
    assert set(table["model_id"].to_pylist()) == {config.model_id}
    assert (result.done, result.rejected) == (11, 0)


def test_a_vector_does_not_depend_on_its_neighbours(bundle: Files) -> None:
    embed = _load(bundle)
    blobs = [picture(seed) for seed in range(11)]
    together = _vectors(embed(rows_of_shard(11), blobs).tables["embeddings"])
    for seed in (0, 7, 10):
        alone = _vectors(embed(rows_of_shard(1), [blobs[seed]]).tables["embeddings"])
        assert np.array_equal(alone[0], together[seed])


def test_what_is_no_image_is_rejected_under_the_kinds_name(bundle: Files) -> None:
    blobs: list[Blob] = [picture(seed) for seed in range(4)]
    blobs[1] = RejectedImage(RejectReason.CHANGED_DURING_RUN)
    blobs[3] = b""
    result = _load(bundle)(rows_of_shard(4), blobs)
    assert (result.done, result.rejected) == (2, 2)
    rejects = result.tables["rejects"].to_pylist()
    assert [(one["uri"], one["reason"]) for one in rejects] == [
        ("archive/1.png", "changed_during_run"),
        ("archive/3.png", "empty_file"),
    ]
    model_id = parse_config(bundle[CONFIG_FILE]).model_id
    assert {(one["stage"], one["subject"]) for one in rejects} == {("embed", model_id)}
    nothing = _load(bundle)(rows_of_shard(1), [b""])
    assert nothing.tables["embeddings"].num_rows == 0
    assert nothing.tables["embeddings"].schema.equals(result.tables["embeddings"].schema)


def test_the_batch_is_the_bundles_own_and_the_backend_float32(bundle: Files) -> None:
    config = parse_config(bundle[CONFIG_FILE])
    chosen = config.model_copy(update={"backend": OPENVINO_FP32, "batch": 5})
    made = embedder.load({"model_id": config.model_id}, {**bundle, CONFIG_FILE: chosen.to_json()})
    assert isinstance(made, embedder.Embedder)
    assert made.passage.network.batch == 5


def test_bundles_that_do_not_fit_are_refused(bundle: Files) -> None:
    with pytest.raises(BundleError, match=r"another model than planned.*plan names 00"):
        _load(bundle, model_id="00")
    with pytest.raises(BundleError, match=r"damaged \(tiny: model.safetensors\)"):
        _load({**bundle, WEIGHTS_FILE: bundle[WEIGHTS_FILE][:-1] + b"\0"})
