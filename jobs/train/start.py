"""What a classifier's training may start from."""

from collections.abc import Mapping
from typing import Any

from jobs.learned import Start, find_start
from schemas.errors import BundleError
from schemas.protocols import Store
from schemas.specs.train import TrainSpec
from workers.pixels.steps import Recipe

BACKBONES = ("classifier", "simsiam")
"""Families whose weights are those of a network of timm."""


def resolve_start(spec: TrainSpec, store: Store, folds: Mapping[str, int]) -> Start:
    """Find what ``spec.start`` names; ``folds`` are the fold held out and the one validated on.

    Raises:
        BundleError: if there is no such bundle, or it does not fit the training.
        LeakError: if it learned from images that this training is to be tested on; see
            `jobs.learned.find_start`.
    """

    def check(bundle: Mapping[str, Any], name: str, data: Mapping[str, Any]) -> None:
        _check_fit(spec, bundle, name, data)

    return find_start(spec, store, folds, check)


def _check_fit(
    spec: TrainSpec, bundle: Mapping[str, Any], name: str, data: Mapping[str, Any]
) -> None:
    if bundle["family"] not in BACKBONES:
        raise BundleError(
            "The start bundle is no network of timm",
            where=f"{name}, train.start",
            got=bundle["family"],
            remedy="start from a bundle that `kind: train` or `kind: pretrain` made",
        )
    if bundle["architecture"] != spec.architecture:
        raise BundleError(
            "The start bundle has another architecture",
            where=f"{name}, train.architecture",
            got=spec.architecture,
            remedy=f"set `architecture: {bundle['architecture']}`, or start from another bundle",
        )
    if data.get("head") == "svm":
        raise BundleError(
            "The start bundle has a support vector machine on another bundle's network",
            where=f"{name}, train.start",
            got="head svm",
            remedy=f"start from the network itself, `bundle:{data['start']['bundle']}`",
        )
    stated = Recipe.from_dict(spec.preprocess.model_dump(mode="json"))
    its_own = spec.head == "svm" and "preprocess" in spec.model_fields_set
    if its_own and stated.hash != bundle["recipe"]:
        raise BundleError(
            "The features of the start bundle are of pixels by another recipe",
            where=f"{name}, train.preprocess",
            got=stated.hash,
            remedy=f"its recipe is {bundle['recipe']}: leave `preprocess` out for head svm",
        )
