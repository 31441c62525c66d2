"""The table from a kind to its computation.

Imports are local here: a process loads only what its kind needs, so that a cleaning worker carries
no torch and a CPU scorer neither torch nor timm.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from cluster.train_end import metered
from cluster.train_order import TrainOrder
from cluster.watching.logs import configure_logs, log_fields
from schemas.plan import FinishFunction, ShardFunction

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Work:
    """How a kind computes its shards. Functions are called in the process that computes."""

    load: Callable[[Params], ShardFunction]
    """Prepares the shard function once a process, models included."""
    finish: Callable[[Params], FinishFunction] | None = None
    """Prepares the finishing step, for kinds that have one."""
    whole: bool = False
    """The single shard needs all rows at once, so it must not be halved."""
    probe: Callable[[Params], ShardFunction] | None = None
    """Prepares the part that can die on a bad image; all of `load` when not given."""


def _phantoms(params: Params) -> ShardFunction:
    from workers.phantoms.sharding import load

    return load(params)


def _phantoms_finish(params: Params) -> FinishFunction:
    from workers.phantoms.sharding import load_finish

    return load_finish(params)


def _ingest(params: Params) -> ShardFunction:
    from workers.ingest import load

    return load(params)


def _annotate(params: Params) -> ShardFunction:
    from cluster.fetch import Fetcher
    from workers.annotations.annotating import load

    return load(params, Fetcher().fetch_files)


def _profile(params: Params) -> ShardFunction:
    from workers.profiling import load

    if not params["pictures"]:
        return load(params)
    from workers.figures.profile import draw_profile

    return load(params, draw_profile)


def _clean(params: Params) -> ShardFunction:
    from workers.cleaning import load

    return load(params)


def _clean_finish(params: Params) -> FinishFunction:
    from cluster.spread import OnRay
    from workers.cleaning import load_finish

    return load_finish(params, OnRay(f"{params['dataset']}, near-duplicates"))


def _prepare(params: Params) -> ShardFunction:
    from workers.pixels.steps import NVJPEG_DECODER, Recipe

    if Recipe.from_dict(params["recipe"]).decoder == NVJPEG_DECODER:
        from workers import device_preparer

        return device_preparer.load(params)
    from workers import preparing

    return preparing.load(params)


def _split(params: Params) -> ShardFunction:
    from cluster.spread import OnRay
    from workers.splitting import load

    return load(params, OnRay(f"{params['dataset']}, near-duplicates"))


def _score(params: Params) -> ShardFunction:
    from cluster.storage import open_storage
    from schemas.bundle import BACKENDS, CONFIG_FILE, parse_config
    from workers.scoring.choice import choose_backend

    bundle = open_storage(params["bundle"])
    config = parse_config(bundle.get(CONFIG_FILE), bundle.root)
    backend = BACKENDS[choose_backend(config, params["backend"], params["device"])]
    files = {name: bundle.get(name) for name in (CONFIG_FILE, *backend.files)}
    if config.detection is not None:
        return _detector_scorer(params, files, backend.runtime)
    if backend.runtime == "openvino":
        from workers.scoring import openvino_scorer

        return openvino_scorer.load(params, files)
    from workers.scoring import torch_scorer

    return torch_scorer.load(params, files)


def _detector_scorer(params: Params, files: Mapping[str, bytes], runtime: str) -> ShardFunction:
    if runtime == "openvino":
        from workers.scoring import openvino_detector

        return openvino_detector.load(params, files)
    from workers.scoring import torch_detector

    return torch_detector.load(params, files)


def _embed(params: Params) -> ShardFunction:
    from cluster.storage import open_storage
    from schemas.bundle import CONFIG_FILE, WEIGHTS_FILE
    from workers.scoring import embedder

    bundle = open_storage(params["bundle"])
    files = {name: bundle.get(name) for name in (CONFIG_FILE, WEIGHTS_FILE)}
    return embedder.load(params, files)


def _explain(params: Params) -> ShardFunction:
    from cluster.fetch import Fetcher
    from cluster.storage import open_storage
    from schemas.bundle import CONFIG_FILE, WEIGHTS_FILE
    from workers.explain import explaining

    bundle = open_storage(params["bundle"])
    files = {name: bundle.get(name) for name in (CONFIG_FILE, WEIGHTS_FILE)}
    return explaining.load(params, files, Fetcher().fetch_files)


def _explain_finish(params: Params) -> FinishFunction:
    from workers.explain.summary import load_finish

    return load_finish(params)


def _decode_probe(params: Params) -> ShardFunction:
    from workers.scoring.probe import load

    return load(params)


def train_bundle(order: TrainOrder) -> dict[str, bytes]:
    """Lead a training; called in a process of its own, so that the driver loads no torch."""
    configure_logs()
    with log_fields(order.fields):
        if order.alone:
            return metered(lambda: _train_alone(order))
        from cluster.torch_trainer import train_bundle as lead

        return lead(order)


def _train_alone(order: TrainOrder) -> dict[str, bytes]:
    return train_here(order.lake, order.run_id, order.rows, order.config, order.note, order.note)


def train_here(
    lake: str,
    run_id: str,
    rows: pa.Table,
    config: Params,
    note: Callable[[Mapping[str, float]], object] | None = None,
    warn: Callable[[str], object] | None = None,
) -> dict[str, bytes]:
    """Train with one worker in this process; see `cluster.train_here.train_here`."""
    if "svm" in config:
        from cluster.svm_trainer import train_svm

        return train_svm(lake, rows, config)
    from cluster.train_here import train_here as train

    return train(lake, run_id, rows, config, note, warn)


def measure_drift(scores: pa.Table, reference: pa.Table, model: Params) -> Mapping[str, Any]:
    """How far scores moved; loads SciPy's statistics, which no plan needs."""
    from workers.metrics.drift import measure_drift as measure

    return measure(scores, reference, model)


def _evaluate(params: Params) -> ShardFunction:
    from workers.metrics.evaluating import load

    if not params["pictures"]:
        return load(params)
    from workers.figures.evaluation import draw_evaluation

    return load(params, draw_evaluation)


def _evaluate_detector(params: Params) -> ShardFunction:
    from workers.metrics.detecting import load

    if not params["pictures"]:
        return load(params)
    from workers.figures.detection import draw_detection

    return load(params, draw_detection)


def _review(params: Params) -> ShardFunction:
    from workers.detection.missing import load

    return load(params)


WORKS: Mapping[str, Work] = MappingProxyType(
    {
        "phantoms": Work(_phantoms, finish=_phantoms_finish),
        "ingest": Work(_ingest),
        "annotate": Work(_annotate),
        "profile": Work(_profile, whole=True),
        "clean": Work(_clean, finish=_clean_finish),
        "prepare": Work(_prepare),
        "split": Work(_split, whole=True),
        "score": Work(_score, probe=_decode_probe),
        "embed": Work(_embed, probe=_decode_probe),
        "explain": Work(_explain, finish=_explain_finish, probe=_decode_probe),
        "evaluate": Work(_evaluate, whole=True),
        "evaluate_detector": Work(_evaluate_detector, whole=True),
        "review": Work(_review, whole=True),
    }
)
"""Kinds that compute in shards."""
