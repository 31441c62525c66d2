"""The families of networks that can be trained, each with its way from rows to a bundle."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

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


class Method(Protocol):
    """How one network is fitted and made into a bundle; travels to every worker."""

    @property
    def kind(self) -> str:
        """The kind of job, as it stands in rejects."""

    @property
    def name(self) -> str:
        """The bundle's name."""

    @property
    def fingerprint(self) -> str:
        """What determined the training."""

    def settings(self) -> dict[str, Any]:
        """The training's settings as JSON values."""

    def fit(
        self, examples: Examples, context: TrainContext, origin: Origin, cache_bytes: int
    ) -> Fitted:
        """One worker's whole training; decoded images take ``cache_bytes`` at most."""

    def finish(
        self, checkpoint: tuple[bytes, bytes], preprocessing: Preprocessing, examples: Examples
    ) -> dict[str, bytes]:
        """The bundle of the best epoch; ``checkpoint`` is its weights and the progress as JSON."""


@dataclass(frozen=True)
class ClassifierMethod:
    """A classifier."""

    config: TrainConfig
    facts: BundleFacts
    kind: str = "train"

    @property
    def name(self) -> str:
        """See `Method`."""
        return self.facts.name

    @property
    def fingerprint(self) -> str:
        """See `Method`."""
        return self.facts.fingerprint

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        return self.config.to_dict()

    def fit(
        self, examples: Examples, context: TrainContext, origin: Origin, cache_bytes: int
    ) -> Fitted:
        """See `Method`."""
        return fit_classifier(
            self.config,
            examples,
            context,
            cache_bytes=cache_bytes,
            start=origin.weights,
            start_pixels=origin.pixels,
        )

    def finish(
        self, checkpoint: tuple[bytes, bytes], preprocessing: Preprocessing, examples: Examples
    ) -> dict[str, bytes]:
        """See `Method`."""
        return classifier_finishing.finish_bundle(
            checkpoint, preprocessing, self.facts, self.config, examples
        )


@dataclass(frozen=True)
class DetectorMethod:
    """A detector of any family."""

    config: DetectorConfig
    facts: DetectorFacts
    kind: str = "train_detector"

    @property
    def name(self) -> str:
        """See `Method`."""
        return self.facts.name

    @property
    def fingerprint(self) -> str:
        """See `Method`."""
        return self.facts.fingerprint

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        return self.config.to_dict()

    def fit(
        self, examples: Examples, context: TrainContext, origin: Origin, cache_bytes: int
    ) -> Fitted:
        """See `Method`."""
        return fit_detector(self.config, examples, context, origin=origin, cache_bytes=cache_bytes)

    def finish(
        self, checkpoint: tuple[bytes, bytes], preprocessing: Preprocessing, examples: Examples
    ) -> dict[str, bytes]:
        """See `Method`."""
        return detector_finishing.finish_bundle(
            checkpoint, preprocessing, self.facts, self.config, examples
        )


@dataclass(frozen=True)
class SimSiamMethod:
    """A backbone, without labels."""

    config: SimSiamConfig
    facts: BackboneFacts
    kind: str = "pretrain"

    @property
    def name(self) -> str:
        """See `Method`."""
        return self.facts.name

    @property
    def fingerprint(self) -> str:
        """See `Method`."""
        return self.facts.fingerprint

    def settings(self) -> dict[str, Any]:
        """See `Method`."""
        return self.config.to_dict()

    def fit(
        self, examples: Examples, context: TrainContext, origin: Origin, cache_bytes: int
    ) -> Fitted:
        """See `Method`."""
        return fit_simsiam(self.config, examples, context, origin=origin, cache_bytes=cache_bytes)

    def finish(
        self, checkpoint: tuple[bytes, bytes], preprocessing: Preprocessing, examples: Examples
    ) -> dict[str, bytes]:
        """See `Method`."""
        return simsiam_bundling.finish_bundle(
            checkpoint, preprocessing, self.facts, self.config, examples
        )


def _classifier(training: Mapping[str, Any], bundle: Mapping[str, Any]) -> Method:
    config = TrainConfig.from_dict(training)
    facts = BundleFacts(**bundle, architecture=config.architecture, classes=config.classes)
    return ClassifierMethod(config, facts)


def _detector(training: Mapping[str, Any], bundle: Mapping[str, Any]) -> Method:
    return DetectorMethod(DetectorConfig.from_dict(training), DetectorFacts(**bundle))


def _simsiam(training: Mapping[str, Any], bundle: Mapping[str, Any]) -> Method:
    return SimSiamMethod(SimSiamConfig.from_dict(training), BackboneFacts(**bundle))


METHODS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Method]] = MappingProxyType(
    {"train": _classifier, "train_detector": _detector, "pretrain": _simsiam}
)
"""By kind: the method that a plan's ``training`` and ``bundle`` describe."""
