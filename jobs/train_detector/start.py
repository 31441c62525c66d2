"""What a detector's training may start from: a detector, or a network that is its backbone."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from jobs.starting import Start, check_architecture, find_start, refuse_machine
from schemas.errors import BundleError
from schemas.protocols import Store
from schemas.specs.train_detector import DetectorSpec

DETECTORS = ("centernet", "yolox")
"""Families whose bundles are detectors."""


def resolve_start(spec: DetectorSpec, store: Store, folds: Mapping[str, int]) -> Start:
    """Find what ``spec.start`` names; ``folds`` are the fold held out and the one validated on.

    Raises:
        BundleError: if there is no such bundle, or it does not fit the training.
        LeakError: if it learned from images that this training is to be tested on; see
            `jobs.starting.find_start`.
    """
    return find_start(spec, store, folds, partial(_check_fit, spec))


def _check_fit(
    spec: DetectorSpec, bundle: Mapping[str, Any], name: str, data: Mapping[str, Any]
) -> None:
    where = f"{name}, train_detector.start"
    if bundle["family"] in DETECTORS and bundle["family"] != spec.family:
        raise BundleError(
            "The start bundle is a detector of another family",
            where=where,
            got=bundle["family"],
            remedy=f"set `family: {bundle['family']}`, or start from another bundle",
        )
    if spec.family == "yolox" and bundle["family"] != "yolox":
        raise BundleError(
            "The backbone of yolox is its own",
            where=where,
            got=bundle["family"],
            remedy="start from a yolox bundle or from none, or set `family: centernet`",
        )
    check_architecture(bundle, name, spec.kind, spec.resolved_architecture)
    refuse_machine(data, name, spec.kind)
