"""The table from a kind to the functions that plan and run it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jobs.annotate
import jobs.clean
import jobs.embed
import jobs.evaluate
import jobs.evaluate_detector
import jobs.explain
import jobs.ingest
import jobs.phantoms
import jobs.prepare
import jobs.pretrain
import jobs.profile
import jobs.review
import jobs.score
import jobs.split
import jobs.train
import jobs.train_detector
from schemas.plan import Plan
from schemas.protocols import Pool, Report, Store


@dataclass(frozen=True)
class Kind:
    """How a kind is planned and run; each takes the spec of its own kind."""

    plan: Callable[[Any, Store], Plan]
    run: Callable[[Any, Pool, Store], Report]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "phantoms": Kind(jobs.phantoms.plan, jobs.phantoms.run),
        "ingest": Kind(jobs.ingest.plan, jobs.ingest.run),
        "annotate": Kind(jobs.annotate.plan, jobs.annotate.run),
        "profile": Kind(jobs.profile.plan, jobs.profile.run),
        "clean": Kind(jobs.clean.plan, jobs.clean.run),
        "prepare": Kind(jobs.prepare.plan, jobs.prepare.run),
        "split": Kind(jobs.split.plan, jobs.split.run),
        "pretrain": Kind(jobs.pretrain.plan, jobs.pretrain.run),
        "train": Kind(jobs.train.plan, jobs.train.run),
        "train_detector": Kind(jobs.train_detector.plan, jobs.train_detector.run),
        "score": Kind(jobs.score.plan, jobs.score.run),
        "embed": Kind(jobs.embed.plan, jobs.embed.run),
        "evaluate": Kind(jobs.evaluate.plan, jobs.evaluate.run),
        "evaluate_detector": Kind(jobs.evaluate_detector.plan, jobs.evaluate_detector.run),
        "review": Kind(jobs.review.plan, jobs.review.run),
        "explain": Kind(jobs.explain.plan, jobs.explain.run),
    }
)
"""Add a module here and its spec to `schemas.specs.SPECS`; a study strings these together, and has
its place in `cluster.runner`."""
