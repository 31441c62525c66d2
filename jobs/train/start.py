"""What a training starts from: random weights, a checkpoint, or another bundle of the lake."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.learned import learned_images
from jobs.rows import LATEST_SPLITS, ROLE
from schemas.bundle import WEIGHTS_FILE
from schemas.errors import BundleError, LeakError
from schemas.protocols import Store
from schemas.specs.train import TrainSpec
from workers.pixels.steps import Recipe

_BUNDLE = "bundle:"

_MET_AGAIN = f"""
WITH places AS (SELECT image_id, {ROLE} AS role FROM ({LATEST_SPLITS})),
learned AS (SELECT unnest($learned) AS image_id),
tested AS (
    SELECT places.image_id, images.patient_ids
    FROM places JOIN current_images AS images ON images.image_id = places.image_id
    WHERE images.dataset = $dataset AND places.role = 'test'
),
patients AS (
    SELECT unnest(patient_ids) AS patient FROM current_images
    WHERE dataset = $dataset AND image_id IN (SELECT image_id FROM learned)
)
SELECT count(*) AS images FROM tested
WHERE image_id IN (SELECT image_id FROM learned) OR image_id IN (
    SELECT image_id FROM (SELECT image_id, unnest(patient_ids) AS patient FROM tested)
    WHERE patient IN (SELECT patient FROM patients))
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
    """Images to test on that are of patients whose images the start has learned from."""


def resolve_start(spec: TrainSpec, store: Store, folds: Mapping[str, int]) -> Start:
    """Find what ``spec.start`` names; ``folds`` are the fold held out and the one validated on.

    Raises:
        BundleError: if there is no such bundle, or it does not fit the training.
        LeakError: if the bundle learned from images that this training is to be tested on, or from
            others of their patients, unless the spec allows it.
    """
    if spec.start == "none":
        return Start({"weights": "random"})
    if spec.start == "pretrained":
        return Start({"weights": "timm's pretrained ones"})
    if not spec.start.startswith(_BUNDLE):
        content = hashlib.blake2b(store.read_source(spec.start), digest_size=16).hexdigest()
        return Start({"checkpoint": content}, content, spec.start)
    bundle = store.bundle(spec.start.removeprefix(_BUNDLE))
    name = f"{bundle['name']}@{bundle['version']}"
    data = json.loads(bundle["data"] or "{}")
    _check_fit(spec, bundle, name, data)
    return Start(
        told={"bundle": name, "model_id": bundle["model_id"]},
        identity=str(bundle["model_id"]),
        uri=f"{bundle['uri']}/{WEIGHTS_FILE}",
        bundle=bundle,
        leaks=_leaks(spec, store, name, _learned_ids(store, data), folds),
    )


def _learned_ids(store: Store, data: Mapping[str, Any]) -> list[str]:
    """Ids of the images a bundle learned from, each once."""
    ids: list[str] = learned_images(store, data)["image_id"].unique().to_pylist()
    return ids


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
    spec: TrainSpec, store: Store, name: str, learned: list[str], folds: Mapping[str, int]
) -> int:
    if not learned:
        return 0
    wanted = {
        "split": spec.split,
        "dataset": spec.dataset,
        "fold": folds.get("fold"),
        "inner_fold": folds.get("inner_fold"),
        "learned": learned,
    }
    count: int = store.query(_MET_AGAIN, wanted)["images"][0].as_py()
    if count and not spec.allow_leaks:
        held_out = "the test part" if spec.fold is None else f"the test part and fold {spec.fold}"
        alike = "" if spec.fold is None else f" with `fold: {spec.fold}`"
        raise LeakError(
            f"The start bundle learned from images of {held_out}, or of their patients",
            where=f"{name}, split {spec.split}",
            got=f"{count} images",
            remedy=f"start from a bundle trained by this split{alike}, or set `allow_leaks: true` "
            "to train anyway",
        )
    return count
