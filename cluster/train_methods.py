"""The families of networks that can be trained, each with its way from rows to a bundle."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from schemas.bundle import Preprocessing
from workers.detection import finishing as detector_finishing
from workers.detection.bundling import DetectorFacts
from workers.detection.config import DetectorConfig
from workers.detection.fitting import fit_detector
from workers.models.classifier import finishing as classifier_finishing
from workers.models.classifier.bundling import BundleFacts
from workers.models.classifier.fitting import fit_classifier
from workers.models.simsiam import bundling as simsiam_bundling
from workers.models.simsiam.bundling import BackboneFacts
from workers.models.simsiam.config import SimSiamConfig
from workers.models.simsiam.fitting import fit_simsiam
from workers.training.config import TrainConfig
from workers.training.context import TrainContext
from workers.training.examples import Examples
from workers.training.feeding import Fitted, Origin

Checkpoint = tuple[bytes, bytes]
"""Weights of the best epoch, and the progress as JSON."""


class Settings(Protocol):
    """What determines a training."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""


class Facts(Protocol):
    """What a bundle says beside its network."""

    @property
    def name(self) -> str:
        """The bundle's name."""

    @property
    def fingerprint(self) -> str:
        """What determined the training."""


Config = TypeVar("Config", bound=Settings)
Told = TypeVar("Told", bound=Facts)
Config_contra = TypeVar("Config_contra", bound=Settings, contravariant=True)


class Fit(Protocol[Config_contra]):
    """One worker's whole training; decoded images take ``cache_bytes`` at most."""

    def __call__(
        self,
        config: Config_contra,
        examples: Examples,
        context: TrainContext,
        /,
        *,
        origin: Origin,
        cache_bytes: int,
    ) -> Fitted: ...


@dataclass(frozen=True)
class Method(Generic[Config, Told]):
    """How one network is fitted and made into a bundle; travels to every worker."""

    kind: str
    """The kind of job, as it stands in rejects."""
    config: Config
    facts: Told
    fit_by: Fit[Config]
    finish_by: Callable[[Checkpoint, Preprocessing, Told, Config, Examples], dict[str, bytes]]

    def fit(
        self, examples: Examples, context: TrainContext, origin: Origin, cache_bytes: int
    ) -> Fitted:
        """One worker's whole training; decoded images take ``cache_bytes`` at most."""
        return self.fit_by(self.config, examples, context, origin=origin, cache_bytes=cache_bytes)

    def finish(
        self, checkpoint: Checkpoint, preprocessing: Preprocessing, examples: Examples
    ) -> dict[str, bytes]:
        """The bundle of the best epoch."""
        return self.finish_by(checkpoint, preprocessing, self.facts, self.config, examples)


def classifier(config: TrainConfig, facts: BundleFacts) -> Method[TrainConfig, BundleFacts]:
    """A classifier."""
    return Method("train", config, facts, fit_classifier, classifier_finishing.finish_bundle)


def detector(config: DetectorConfig, facts: DetectorFacts) -> Method[DetectorConfig, DetectorFacts]:
    """A detector of any family."""
    return Method("train_detector", config, facts, fit_detector, detector_finishing.finish_bundle)


def backbone(config: SimSiamConfig, facts: BackboneFacts) -> Method[SimSiamConfig, BackboneFacts]:
    """A backbone, without labels."""
    return Method("pretrain", config, facts, fit_simsiam, simsiam_bundling.finish_bundle)


def _classifier(training: Mapping[str, Any], bundle: Mapping[str, Any]) -> Method[Any, Any]:
    config = TrainConfig.from_dict(training)
    facts = BundleFacts(**bundle, architecture=config.architecture, classes=config.classes)
    return classifier(config, facts)


def _detector(training: Mapping[str, Any], bundle: Mapping[str, Any]) -> Method[Any, Any]:
    return detector(DetectorConfig.from_dict(training), DetectorFacts(**bundle))


def _backbone(training: Mapping[str, Any], bundle: Mapping[str, Any]) -> Method[Any, Any]:
    return backbone(SimSiamConfig.from_dict(training), BackboneFacts(**bundle))


METHODS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Method[Any, Any]]] = (
    MappingProxyType({"train": _classifier, "train_detector": _detector, "pretrain": _backbone})
)
"""By kind: the method that a plan's ``training`` and ``bundle`` describe."""
