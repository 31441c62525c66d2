"""What a training starts from: random weights, a checkpoint, or another bundle of the lake."""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jobs.learned import count_met, met_images
from jobs.rows import LATEST_SPLITS, ROLE
from schemas.bundle import WEIGHTS_FILE, digest
from schemas.errors import BundleError, LeakError
from schemas.protocols import Store
from schemas.specs.train import TrainSpec
from workers.pixels.steps import Recipe

_BUNDLE = "bundle:"

_TESTED = f"""
SELECT image_id FROM (SELECT image_id, {ROLE} AS role FROM ({LATEST_SPLITS}))
WHERE role = 'test'
"""


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


def resolve_start(spec: TrainSpec, store: Store, folds: Mapping[str, int]) -> Start:
    """Find what ``spec.start`` names; ``folds`` are the fold held out and the one validated on.

    Raises:
        BundleError: if there is no such bundle, or it does not fit the training.
        LeakError: if the bundle, or the one whose weights a checkpoint is, learned from images that
            this training is to be tested on, or from others of their patients or groups of
            near-duplicates, unless the spec allows it.
    """
    if spec.start == "none":
        return Start({"weights": "random"})
    if spec.start == "pretrained":
        return Start({"weights": "timm's pretrained ones"})
    if not spec.start.startswith(_BUNDLE):
        content = _content_of(spec.start, store)
        checkpoint: dict[str, Any] = {"checkpoint": content}
        # A file may be a copy of a bundle's weights, and then learned what that bundle did.
        leaks = _leaks(spec, store, "a checkpoint", {"start": checkpoint}, folds)
        return Start(checkpoint, content, spec.start, leaks=leaks)
    bundle = store.bundle(spec.start.removeprefix(_BUNDLE))
    name = f"{bundle['name']}@{bundle['version']}"
    data = json.loads(bundle["data"] or "{}")
    _check_fit(spec, bundle, name, data)
    return Start(
        told={"bundle": name, "model_id": bundle["model_id"]},
        identity=str(bundle["model_id"]),
        uri=f"{bundle['uri']}/{WEIGHTS_FILE}",
        bundle=bundle,
        leaks=_leaks(spec, store, name, data, folds),
    )


def _content_of(uri: str, store: Store) -> str:
    """The hash of a checkpoint; a study plans many trainings that start from the same one."""
    files = list(itertools.islice(store.list_source(uri), 2))
    if len(files) != 1:
        return digest(store.read_source(uri))
    return _hashed(store.read_source, uri, files[0].bytes, files[0].etag)


@lru_cache(maxsize=64)
def _hashed(read: Callable[[str], bytes], uri: str, size: int, etag: str) -> str:
    """Hash a file once for each of its states, which ``size`` and ``etag`` tell apart."""
    return digest(read(uri))


def _check_fit(
    spec: TrainSpec, bundle: Mapping[str, Any], name: str, data: Mapping[str, Any]
) -> None:
    if bundle["family"] != "classifier":
        raise BundleError(
            "The start bundle is no classifier",
            where=f"{name}, train.start",
            got=bundle["family"],
            remedy="start from a bundle that `kind: train` made",
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


def _leaks(
    spec: TrainSpec, store: Store, name: str, data: Mapping[str, Any], folds: Mapping[str, int]
) -> int:
    met = met_images(store, data, dataset=spec.dataset, split=spec.split)
    if not met.num_rows:
        return 0
    wanted = {
        "split": spec.split,
        "dataset": spec.dataset,
        "fold": folds.get("fold"),
        "inner_fold": folds.get("inner_fold"),
    }
    counts = count_met(met, store.query(_TESTED, wanted)["image_id"])
    count = sum(counts.values())
    if count and not spec.allow_leaks:
        held_out = "the test part" if spec.fold is None else f"the test part and fold {spec.fold}"
        alike = "" if spec.fold is None else f" with `fold: {spec.fold}`"
        raise LeakError(
            f"The start bundle learned from images of {held_out}, or of their patients",
            where=f"{name}, split {spec.split}",
            got=f"{count} images ({counts['image']} themselves, {counts['patient']} by their "
            f"patients, {counts['duplicate']} by near-duplicates)",
            remedy=f"start from a bundle trained by this split{alike}; give `patients` in `ingest` "
            "if two data sets number different people alike; or set `allow_leaks: true` to train "
            "anyway",
        )
    return count
