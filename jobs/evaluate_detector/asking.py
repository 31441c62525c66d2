"""What an evaluation of a detector asks: a spec and the bundle it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.annotated import LESION
from jobs.bundles import detection_settings
from schemas.bundle import DetectionSettings
from schemas.errors import BundleError
from schemas.naming import reference, segment
from schemas.plan import fingerprint
from schemas.protocols import Store
from schemas.specs.evaluate_detector import EvaluateDetectorSpec

NOTHING = "none"
"""In place of a category in the confusion matrix: no lesion there, or none found."""


@dataclass(frozen=True)
class Question:
    """A spec with the row of `models` of its bundle, and what its detections mean."""

    spec: EvaluateDetectorSpec
    bundle: Mapping[str, Any]
    settings: DetectionSettings

    @staticmethod
    def of(spec: EvaluateDetectorSpec, store: Store) -> "Question":
        """Look the bundle up.

        Raises:
            BundleError: if there is no such bundle, it is no detector, or a class of it is called
                none.
        """
        bundle = store.bundle(spec.model)
        settings = detection_settings(bundle, store)
        if NOTHING in bundle["classes"]:
            raise BundleError(
                "A class has the name that a confusion matrix has for nothing found",
                where=reference(bundle),
                got=", ".join(bundle["classes"]),
                remedy="annotate with another name, by `categories` of `annotate`",
            )
        return Question(spec, bundle, settings)

    @property
    def classes(self) -> list[str]:
        """The classes that figures are of."""
        return [LESION] if self.is_merged else list(self.bundle["classes"])

    @property
    def is_merged(self) -> bool:
        """Whether all categories count as one."""
        return self.spec.one_class or self.settings.one_class

    @property
    def taken(self) -> list[str] | None:
        """Categories whose boxes count; others are ignored regions. None for all."""
        return None if self.settings.one_class else list(self.bundle["classes"])

    @property
    def study(self) -> str:
        """The study that the figures bear the name of."""
        return self.spec.study or self.spec.name

    @property
    def trial(self) -> str:
        """The trial that the figures bear the name of."""
        return self.spec.trial or str(self.bundle["name"])

    @property
    def parts(self) -> list[str]:
        """Parts that are reported."""
        return list(self.spec.parts) if self.spec.fold is None else ["test"]

    @property
    def parts_read(self) -> list[str]:
        """Those, and the one that a sweep needs."""
        sweeps = [self.spec.sweep_part] if self.spec.threshold == "sweep" else []
        return list(dict.fromkeys([*self.parts, *sweeps]))

    @property
    def content(self) -> dict[str, Any]:
        """What is asked, whatever the answer; names count, since the figures bear them."""
        return self.spec.identity() | {
            "study": self.study,
            "trial": self.trial,
            "model_id": self.bundle["model_id"],
            "threshold": self.threshold,
            # An equal model under another name has its pictures elsewhere.
            "pictures": self.pictures if self.spec.pictures else None,
        }

    @property
    def key(self) -> tuple[str, ...]:
        """A run alone may write the answer to a question."""
        spec, model_id = self.spec, str(self.bundle["model_id"])
        return (spec.kind, spec.dataset, spec.split, model_id, fingerprint(self.content))

    @property
    def threshold(self) -> float | None:
        """The bundle's operating point; None where a sweep finds one."""
        return None if self.spec.threshold == "sweep" else self.settings.score_threshold

    @property
    def pictures(self) -> str:
        """The folder of the pictures below the lake; other figures of a trial have another one."""
        spec = self.spec
        fold = () if spec.fold is None else (f"fold-{spec.fold}",)
        merged = (LESION,) if self.is_merged else ()
        source = (spec.annotations,)
        names = (self.study, self.trial, reference(self.bundle), spec.dataset, spec.split)
        return "/".join(("reports", *map(segment, (*names, *source, *fold, *merged))))

    @property
    def params(self) -> dict[str, Any]:
        """What the work needs beside the rows."""
        spec = self.spec
        return {
            "classes": self.classes,
            "merged": self.is_merged,
            "taken": self.taken,
            "parts": self.parts,
            "iou": spec.iou,
            "threshold": self.threshold,
            "sweep_part": spec.sweep_part,
            "bootstrap": spec.bootstrap,
            "seed": spec.seed,
            "pictures": spec.pictures,
            "columns": {
                "study": self.study,
                "trial": self.trial,
                "fold": spec.fold,
                "dataset": spec.dataset,
                "model_id": self.bundle["model_id"],
            },
        }
