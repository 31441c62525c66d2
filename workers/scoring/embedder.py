"""Embedding one shard: the features of a bundle's network as rows, in float32 PyTorch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from schemas.bundle import (
    CONFIG_FILE,
    TORCH_CUDA_FP32,
    TORCH_FP32,
    WEIGHTS_FILE,
    check_files,
    parse_config,
)
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.tables import TABLES, rows_of
from workers.models.classifier.embedding import Features
from workers.models.classifier.svm_head import network_weights
from workers.models.network import build_network, load_weights
from workers.models.normalise import Normalised
from workers.scoring.choice import choose_batch
from workers.scoring.cuda_forward import make_forward
from workers.scoring.forward import Batched, Forward, Outputs
from workers.scoring.passing import Passage, check_planned, decode_ahead


@dataclass(frozen=True)
class Embedder:
    """Writes the feature vector of every image of a shard."""

    passage: Passage

    def __call__(self, rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        """Embed the images of ``rows`` (columns ``image_id``, ``uri``, ``etag``, ``frame``)."""
        passed = self.passage(rows, blobs)
        model_id = self.passage.config.model_id
        return ShardResult(
            {
                "embeddings": embedding_rows(passed.image_ids, passed.outputs, model_id),
                "rejects": passed.rejects,
            },
            done=len(passed.image_ids),
            rejected=passed.rejects.num_rows,
        )


def load(params: Mapping[str, Any], files: Mapping[str, bytes]) -> ShardFunction:
    """Make a bundle ready to embed.

    ``params``: ``model_id``, perhaps ``batch``, ``device`` and ``threads``. ``files``: the bundle's
    `config.json` and weights. Vectors are computed in float32 whatever backend the bundle scores
    with, in batches of one size, so that they depend on neither backend nor neighbours.

    Raises:
        BundleError: when files are missing or damaged, or the bundle does not fit the plan.
    """
    device = str(params.get("device", "cpu"))
    config = parse_config(files[CONFIG_FILE])
    check_planned(params, config, ("classifier", "simsiam"))
    check_files(config, files, (WEIGHTS_FILE,))
    backend = TORCH_FP32 if device == "cpu" else TORCH_CUDA_FP32
    if device == "cpu":
        torch.set_num_threads(int(params.get("threads", 1)))
    preprocessing = config.preprocessing
    network = build_network(config.architecture, config.num_classes, preprocessing.channels)
    load_weights(network, network_weights(files[WEIGHTS_FILE]))
    whole = Normalised(Features(network), preprocessing.mean, preprocessing.std)

    def make(batch: int) -> Forward:
        return make_forward(whole, backend, batch, device)

    batched = Batched(make, choose_batch(config, params.get("batch"), device))
    return Embedder(Passage(config, batched, "embed", decode_ahead(backend)))


def embedding_rows(image_ids: Sequence[str], vectors: Sequence[Outputs], model_id: str) -> pa.Table:
    """Rows of `embeddings` without ``run_id``; ``vectors`` are float32 (B, D) by batch."""
    if not image_ids:
        return rows_of("embeddings", [])
    vectors_ND = np.concatenate(vectors)
    count, length = vectors_ND.shape
    offsets = pa.array(np.arange(0, (count + 1) * length, length, dtype=np.int32))
    schema = TABLES["embeddings"].schema
    wanted = pa.schema([field for field in schema if field.name != "run_id"])
    columns = {
        "image_id": pa.array(image_ids, pa.string()),
        "model_id": pa.array([model_id] * count, pa.string()),
        "vector": pa.ListArray.from_arrays(offsets, pa.array(vectors_ND.reshape(-1), pa.float32())),
    }
    return pa.table([columns[field.name] for field in wanted], schema=wanted)
