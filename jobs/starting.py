"""What a training starts from: random weights, timm's, a bundle's or those of a file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobs.corpora import BySplit, split_parameters
from jobs.learned import count_met, met_images
from jobs.rows import LATEST_SPLITS, ROLE
from schemas.bundle import WEIGHTS_FILE
from schemas.errors import BundleError, LeakError
from schemas.protocols import Store

BACKBONES = ("classifier", "simsiam")
"""Families whose weights are those of a network of timm."""

_BUNDLE = "bundle:"

_TESTED = f"""
SELECT image_id FROM (SELECT image_id, {ROLE} AS role FROM ({LATEST_SPLITS}))
WHERE role = 'test'
"""


class Starting(BySplit, Protocol):
    """A training that may start from weights."""

    @property
    def start(self) -> str:
        """none, pretrained, ``bundle:NAME`` or the path of a safetensors file."""


CheckFit = Callable[[Mapping[str, Any], str, Mapping[str, Any]], None]
"""Raises where a bundle (its row, its name and version, what it says of its data) does not fit."""


@dataclass(frozen=True)
class Start:
    """Where a training's first weights come from."""

    told: Mapping[str, Any]
    """What the model card says of it."""
    identity: str | None = None
    """What of it the result depends on: a checkpoint's content, or a bundle's ``model_id``."""
    uri: str | None = None
    """A safetensors file."""
    bundle: Mapping[str, Any] = field(default_factory=dict)
    """The row of `models` and the ``uri``, where it is a bundle."""
    leaks: int = 0
    """Images to test on that the start has learned from, or from others of their patients or
    groups of near-duplicates."""


def find_start(asked: Starting, store: Store, folds: Mapping[str, int], check: CheckFit) -> Start:
    """Find what a training starts from; ``folds`` are the fold held out and the one validated on.

    Raises:
        BundleError: if there is no such bundle, or ``check`` finds that it does not fit.
        LeakError: if the bundle, or the one whose weights a checkpoint is, learned from images that
            this training is to be tested on, or from others of their patients or groups of
            near-duplicates, unless that is allowed.
    """
    if asked.start == "none":
        return Start({"weights": "random"})
    if asked.start == "pretrained":
        return Start({"weights": "timm's pretrained ones"})
    if not asked.start.startswith(_BUNDLE):
        content = store.digest_source(asked.start)
        checkpoint: dict[str, Any] = {"checkpoint": content}
        # A file may be a copy of a bundle's weights, and then learned what that bundle did.
        leaks = _count_start_leaks(asked, store, "a checkpoint", {"start": checkpoint}, folds)
        return Start(checkpoint, content, asked.start, leaks=leaks)
    bundle = store.bundle(asked.start.removeprefix(_BUNDLE))
    name = f"{bundle['name']}@{bundle['version']}"
    data = json.loads(bundle["data"] or "{}")
    check(bundle, name, data)
    return Start(
        told={"bundle": name, "model_id": bundle["model_id"]},
        identity=str(bundle["model_id"]),
        uri=f"{bundle['uri']}/{WEIGHTS_FILE}",
        bundle=bundle,
        leaks=_count_start_leaks(asked, store, name, data, folds),
    )


def _count_start_leaks(
    asked: BySplit, store: Store, name: str, data: Mapping[str, Any], folds: Mapping[str, int]
) -> int:
    """Images a training is to be tested on that its start has learned from.

    Others of their patients or groups of near-duplicates count too. ``data`` is what the start's
    bundle ``name`` says of its own; ``folds`` as `jobs.corpora.resolve_folds` found them.

    Raises:
        LeakError: if there are any, unless leaks are allowed.
    """
    met = met_images(store, data, dataset=asked.dataset, split=asked.split)
    if not met.num_rows:
        return 0
    tested = store.query(_TESTED, split_parameters(asked, folds))["image_id"]
    counts = count_met(met, tested)
    count = sum(counts.values())
    if count and not asked.allow_leaks:
        held_out = "the test part" if asked.fold is None else f"the test part and fold {asked.fold}"
        alike = "" if asked.fold is None else f" with `fold: {asked.fold}`"
        raise LeakError(
            f"The start bundle learned from images of {held_out}, or of their patients",
            where=f"{name}, split {asked.split}",
            got=f"{count} images ({counts['image']} themselves, {counts['patient']} by their "
            f"patients, {counts['duplicate']} by near-duplicates)",
            remedy=f"start from a bundle trained by this split{alike}; give `patients` in `ingest` "
            "if two data sets number different people alike; or set `allow_leaks: true` to train "
            "anyway",
        )
    return count


def check_backbone(bundle: Mapping[str, Any], name: str, kind: str) -> None:
    """Refuse a start bundle ``name`` whose weights are not a timm network's.

    Raises:
        BundleError: if it is of another family.
    """
    if bundle["family"] not in BACKBONES:
        raise BundleError(
            "The start bundle is no network of timm",
            where=f"{name}, {kind}.start",
            got=bundle["family"],
            remedy="start from a bundle that `kind: train` or `kind: pretrain` made",
        )


def check_architecture(bundle: Mapping[str, Any], name: str, kind: str, architecture: str) -> None:
    """Refuse a start bundle ``name`` of another network than the training's.

    Raises:
        BundleError: if it has another architecture.
    """
    if bundle["architecture"] != architecture:
        raise BundleError(
            "The start bundle has another architecture",
            where=f"{name}, {kind}.architecture",
            got=architecture,
            remedy=f"set `architecture: {bundle['architecture']}`, or start from another bundle",
        )


def refuse_machine(data: Mapping[str, Any], name: str, kind: str) -> None:
    """Refuse a start bundle ``name`` whose network is another's; ``data`` is what it says of it.

    Raises:
        BundleError: if it is a support vector machine.
    """
    if data.get("head") == "svm":
        raise BundleError(
            "The start bundle has a support vector machine on another bundle's network",
            where=f"{name}, {kind}.start",
            got="head svm",
            remedy=f"start from the network itself, `bundle:{data['start']['bundle']}`",
        )
