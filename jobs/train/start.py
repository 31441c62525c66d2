"""What a classifier's training may start from."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from jobs.settings import recipe_of
from jobs.starting import (
    Start,
    check_architecture,
    check_backbone,
    find_start,
    refuse_machine,
)
from schemas.errors import BundleError
from schemas.protocols import Store
from schemas.specs.train import TrainSpec


def resolve_start(spec: TrainSpec, store: Store, folds: Mapping[str, int]) -> Start:
    """Find what ``spec.start`` names; ``folds`` are the fold held out and the one validated on.

    Raises:
        BundleError: if there is no such bundle, or it does not fit the training.
        LeakError: if it learned from images that this training is to be tested on; see
            `jobs.starting.find_start`.
    """
    return find_start(spec, store, folds, partial(_check_fit, spec))


def _check_fit(
    spec: TrainSpec, bundle: Mapping[str, Any], name: str, data: Mapping[str, Any]
) -> None:
    check_backbone(bundle, name, spec.kind)
    check_architecture(bundle, name, spec.kind, spec.architecture)
    refuse_machine(data, name, spec.kind)
    stated = recipe_of(spec.preprocess)
    its_own = spec.head == "svm" and "preprocess" in spec.model_fields_set
    if its_own and stated.hash != bundle["recipe"]:
        raise BundleError(
            "The features of the start bundle are of pixels by another recipe",
            where=f"{name}, train.preprocess",
            got=stated.hash,
            remedy=f"its recipe is {bundle['recipe']}: leave `preprocess` out for head svm",
        )
