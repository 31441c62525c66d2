"""What an evaluation asks: a spec and the bundles it names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.bundles import require_classifier
from schemas.errors import BundleError
from schemas.naming import reference, segment
from schemas.protocols import Store
from schemas.specs.evaluate import EvaluateSpec

Bundle = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A spec with the rows of `models` of the bundle it evaluates and of the one it compares."""

    spec: EvaluateSpec
    bundle: Bundle
    other: Bundle | None

    @staticmethod
    def of(spec: EvaluateSpec, store: Store) -> "Question":
        """Look the bundles up and check that the spec fits their classes.

        Raises:
            BundleError: if there is no such bundle, it is no classifier, or it has other classes.
        """
        bundle = _classifier(spec.model, store)
        other = None if spec.against is None else _classifier(spec.against, store)
        if spec.severity is not None:
            _check_classes(bundle, spec.severity.classes, "severity.classes")
        if other is not None:
            _check_classes(bundle, other["classes"], f"against {reference(other)}")
        return Question(spec, bundle, other)

    @property
    def study(self) -> str:
        """The study that the figures bear the name of."""
        return self.spec.study or self.spec.name

    @property
    def trial(self) -> str:
        """The trial that the figures bear the name of."""
        return self.spec.trial or self.spec.split

    @property
    def key(self) -> tuple[str, ...]:
        """A run alone may write a trial's figures of a model on a split.

        Two trials may train the very same weights, and be evaluated at the same time.
        """
        spec = self.spec
        return (
            spec.kind,
            spec.dataset,
            spec.split,
            str(self.bundle["model_id"]),
            self.study,
            self.trial,
        )

    @property
    def content(self) -> dict[str, Any]:
        """What is asked, whatever the answer; names count, since the figures bear them."""
        named = {
            "study": self.study,
            "trial": self.trial,
            "model_id": self.bundle["model_id"],
            # An equal model under another name has its pictures elsewhere.
            "pictures": self.pictures if self.spec.pictures else None,
        }
        if self.other is not None:
            named |= {"against": reference(self.other), "against_id": self.other["model_id"]}
        return self.spec.identity() | named

    @property
    def operating_points(self) -> list[dict[str, Any] | None]:
        """Of the bundle, and of the one it is compared with."""
        return [
            _operating_point(bundle) for bundle in (self.bundle, self.other) if bundle is not None
        ]

    @property
    def pictures(self) -> str:
        """The folder of the pictures below the lake; other figures of a trial have another one."""
        spec = self.spec
        fold = () if spec.fold is None else (f"fold-{spec.fold}",)
        names = (self.study, self.trial, reference(self.bundle), spec.dataset, spec.split, *fold)
        return "/".join(("reports", *map(segment, names)))

    @property
    def facts(self) -> dict[str, Any]:
        """What the user is told of the bundles."""
        against = {} if self.other is None else {"against": reference(self.other)}
        return {"model": reference(self.bundle)} | against

    @property
    def params(self) -> dict[str, Any]:
        """What the work needs beside the rows."""
        spec = self.spec
        return {
            "classes": list(self.bundle["classes"]),
            "operating_point": _operating_point(self.bundle),
            "parts": list(spec.parts) if spec.fold is None else ["test"],
            "bootstrap": spec.bootstrap,
            "seed": spec.seed,
            "severity": None if spec.severity is None else spec.severity.model_dump(mode="json"),
            "subgroups": list(spec.subgroups),
            "age_bands": list(spec.age_bands),
            "against": None if self.other is None else _rival(self.other),
            "pictures": spec.pictures,
            "columns": {
                "study": self.study,
                "trial": self.trial,
                "fold": spec.fold,
                "dataset": spec.dataset,
                "model_id": self.bundle["model_id"],
            },
        }


def _classifier(name: str, store: Store) -> Bundle:
    bundle = store.bundle(name)
    remedy = "name a classifier; `kind: evaluate_detector` is for detectors"
    require_classifier(bundle, remedy)
    return bundle


def _rival(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": reference(bundle),
        "classes": list(bundle["classes"]),
        "operating_point": _operating_point(bundle),
    }


def _operating_point(bundle: Bundle) -> dict[str, Any] | None:
    stated = bundle["operating_point"]
    return json.loads(stated) if stated else None


def _check_classes(bundle: Bundle, classes: tuple[str, ...] | list[str], what: str) -> None:
    if sorted(classes) != sorted(bundle["classes"]):
        raise BundleError(
            "The classes are not those of the model",
            where=f"{reference(bundle)}, {what}",
            got=", ".join(classes),
            remedy=f"the model's are: {', '.join(bundle['classes'])}",
        )
