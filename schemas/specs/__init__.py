"""The table of kinds: every kind of job and the spec that describes it."""

from collections.abc import Mapping
from types import MappingProxyType

from schemas.specs.annotate import AnnotateSpec
from schemas.specs.base import JobSpec
from schemas.specs.clean import CleanSpec
from schemas.specs.embed import EmbedSpec
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.evaluate_detector import EvaluateDetectorSpec
from schemas.specs.explain import ExplainSpec
from schemas.specs.ingest import IngestSpec
from schemas.specs.phantoms import PhantomsSpec
from schemas.specs.prepare import PrepareSpec
from schemas.specs.pretrain import PretrainSpec
from schemas.specs.profile import ProfileSpec
from schemas.specs.review import ReviewSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.split import SplitSpec
from schemas.specs.study import StudySpec
from schemas.specs.train import TrainSpec
from schemas.specs.train_detector import DetectorSpec

SPECS: Mapping[str, type[JobSpec]] = MappingProxyType(
    {
        "phantoms": PhantomsSpec,
        "ingest": IngestSpec,
        "annotate": AnnotateSpec,
        "profile": ProfileSpec,
        "clean": CleanSpec,
        "prepare": PrepareSpec,
        "split": SplitSpec,
        "pretrain": PretrainSpec,
        "train": TrainSpec,
        "train_detector": DetectorSpec,
        "score": ScoreSpec,
        "embed": EmbedSpec,
        "evaluate": EvaluateSpec,
        "evaluate_detector": EvaluateDetectorSpec,
        "review": ReviewSpec,
        "study": StudySpec,
        "explain": ExplainSpec,
    }
)
"""Kinds in the order in which a corpus usually meets them."""

__all__ = ["SPECS", "JobSpec"]
