"""What a pre-training may start from: timm's weights, or a bundle whose network is a backbone."""

from collections.abc import Mapping
from typing import Any

from jobs.starting import Start, check_architecture, check_backbone, find_start
from schemas.protocols import Store
from schemas.specs.pretrain import PretrainSpec


def resolve_start(spec: PretrainSpec, store: Store, folds: Mapping[str, int]) -> Start:
    """Find what ``spec.start`` names; ``folds`` are the fold held out and the one watched.

    Raises:
        BundleError: if there is no such bundle, or it does not fit.
        LeakError: if it learned from images that are to be tested on; see
            `jobs.starting.find_start`.
    """

    def check(bundle: Mapping[str, Any], name: str, _: Mapping[str, Any]) -> None:
        check_backbone(bundle, name, spec.kind)
        check_architecture(bundle, name, spec.kind, spec.architecture)

    return find_start(spec, store, folds, check)
