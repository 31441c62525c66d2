"""The table of kinds: every kind of job and the spec that describes it."""

from collections.abc import Mapping
from types import MappingProxyType

from schemas.specs.base import JobSpec
from schemas.specs.clean import CleanSpec
from schemas.specs.ingest import IngestSpec
from schemas.specs.phantoms import PhantomsSpec
from schemas.specs.prepare import PrepareSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.split import SplitSpec
from schemas.specs.train import EvaluateSpec, TrainSpec

SPECS: Mapping[str, type[JobSpec]] = MappingProxyType(
    {
        "phantoms": PhantomsSpec,
        "ingest": IngestSpec,
        "clean": CleanSpec,
        "prepare": PrepareSpec,
        "split": SplitSpec,
        "train": TrainSpec,
        "score": ScoreSpec,
        "evaluate": EvaluateSpec,
    }
)
"""Kinds in the order in which a corpus usually meets them."""

__all__ = ["SPECS", "JobSpec"]
