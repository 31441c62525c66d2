"""What a pre-training may start from: timm's weights, or a bundle whose network is a backbone."""

from collections.abc import Mapping
from typing import Any

from jobs.learned import Start, find_start
from schemas.errors import BundleError
from schemas.protocols import Store
from schemas.specs.pretrain import PretrainSpec

BACKBONES = ("classifier", "simsiam")
"""Families whose weights are those of a network of timm."""


def resolve_start(spec: PretrainSpec, store: Store, folds: Mapping[str, int]) -> Start:
    """Find what ``spec.start`` names; ``folds`` are the fold held out and the one watched.

    Raises:
        BundleError: if there is no such bundle, or it does not fit.
        LeakError: if it learned from images that are to be tested on; see
            `jobs.learned.find_start`.
    """

    def check(bundle: Mapping[str, Any], name: str, _: Mapping[str, Any]) -> None:
        if bundle["family"] not in BACKBONES:
            raise BundleError(
                "The start bundle is no network of timm",
                where=f"{name}, pretrain.start",
                got=bundle["family"],
                remedy="start from a bundle that `kind: train` or `kind: pretrain` made",
            )
        if bundle["architecture"] != spec.architecture:
            raise BundleError(
                "The start bundle has another architecture",
                where=f"{name}, pretrain.architecture",
                got=spec.architecture,
                remedy=f"set `architecture: {bundle['architecture']}`, or start from another "
                "bundle",
            )

    return find_start(spec, store, folds, check)
