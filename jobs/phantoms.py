"""The kind `phantoms`: make a corpus of artificial images in a directory of its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.batch import run_batch
from schemas.errors import SourceError, UsageError
from schemas.plan import Counts, Plan, shard_bounds
from schemas.protocols import Pool, Report, Store
from schemas.specs.phantoms import PhantomsSpec
from workers.phantoms import GENERATOR_VERSION

FLAWED_SHARE = 0.02
"""Share of images that are small, dark, blurred or blank."""

_BYTES_PER_PIXEL = 2
"""A guess that bounds the memory of a shard: most files are smaller."""


def plan(spec: PhantomsSpec, store: Store) -> Plan:
    """Plan all images of the corpus, or none when the target holds this very corpus.

    Raises:
        UsageError: if the spec asks for no modality or too many duplicates and broken files.
        SourceError: if the target holds anything but this corpus, whole or begun.
    """
    _check(spec)
    finished = _holds_corpus(spec, store)
    count = 0 if finished else spec.count
    image_bytes = _BYTES_PER_PIXEL * spec.size**2
    return Plan(
        kind=spec.kind,
        name=spec.name or spec.kind,
        key=key(spec),
        identity=identity(spec),
        params={
            "target": _target(spec),
            "identity": identity(spec),
            "corpus": corpus_of(spec),
        },
        inputs=pa.table({"index": pa.array(range(count), pa.int64())}),
        bounds=shard_bounds(
            [image_bytes] * count,
            images=spec.execution.shard_images,
            max_bytes=spec.execution.shard_bytes,
        ),
        counts=Counts(up_to_date=spec.count - count),
        facts={"target": _target(spec)},
    )


def run(spec: PhantomsSpec, pool: Pool, store: Store) -> Report:
    """Make the corpus, going on where an earlier driver stopped."""
    _check(spec)
    return run_batch(
        spec,
        lambda: plan(spec, store),
        pool,
        store,
        key=key(spec),
        identity=identity(spec),
    )


def key(spec: PhantomsSpec) -> tuple[str, ...]:
    """A corpus owns its target."""
    return (spec.kind, _target(spec))


def identity(spec: PhantomsSpec) -> Mapping[str, Any]:
    """What the bytes of the corpus depend on; where it lies does not matter."""
    return {"generator": GENERATOR_VERSION, "corpus": corpus_of(spec)}


def corpus_of(spec: PhantomsSpec) -> dict[str, Any]:
    """The fields of the corpus, `workers.phantoms.corpus.Corpus`, that a spec asks for."""
    weights = spec.modalities.model_dump(mode="json")
    return {
        "seed": spec.seed,
        "count": spec.count,
        "size": spec.size,
        "modalities": {name: weight for name, weight in weights.items() if weight > 0},
        "sites": spec.sites,
        "scale_bar_share": spec.scale_bar_share,
        "near_duplicate_share": spec.near_duplicate_share,
        "duplicate_share": spec.duplicate_share,
        "broken_share": spec.broken_share,
        "flawed_share": FLAWED_SHARE,
    }


def _check(spec: PhantomsSpec) -> None:
    """Refuse what no single field of the spec can see."""
    corpus = corpus_of(spec)
    if not corpus["modalities"]:
        raise UsageError(
            "A corpus needs at least one modality",
            where="phantoms.modalities",
            got="only zeros",
            remedy="give us, ct or xray a weight above 0",
        )
    special = spec.near_duplicate_share + spec.duplicate_share + spec.broken_share
    if special + FLAWED_SHARE > 0.5:
        raise UsageError(
            "Duplicates and broken files may be half of a corpus at most, flawed images included",
            where="phantoms.near_duplicate_share + duplicate_share + broken_share",
            got=f"{special:g} and {FLAWED_SHARE:g} flawed",
            remedy=f"keep the sum at or below {0.5 - FLAWED_SHARE:g}",
        )


def _holds_corpus(spec: PhantomsSpec, store: Store) -> bool:
    """Whether the target holds this corpus whole; false when it is empty or half done."""
    wanted = json.loads(json.dumps(identity(spec)))
    target = _target(spec)
    for name, whole in (("corpus.json", True), ("generator.json", False)):
        document = _read(target, name, store)
        if document is not None and document.get("identity") == wanted:
            return whole
        if document is not None:
            raise SourceError(
                "The target holds another corpus",
                where=target,
                got=json.dumps(document.get("identity")),
                remedy="choose another target or remove the old corpus",
            )
    if _occupied(target, store):
        raise SourceError(
            "The target is not empty and holds no corpus",
            where=target,
            got="other files",
            remedy="choose an empty directory",
        )
    return False


def _read(target: str, name: str, store: Store) -> dict[str, Any] | None:
    """A JSON document of the target, if it is there and is one."""
    if _is_remote(target):
        there = name in _remote_files(target, store)
        text = store.read_source(f"{target}/{name}") if there else b""
    else:
        path = Path(target) / name
        text = path.read_bytes() if path.is_file() else b""
    try:
        document = json.loads(text) if text else None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _occupied(target: str, store: Store) -> bool:
    if _is_remote(target):
        return bool(_remote_files(target, store))
    return Path(target).exists() and any(Path(target).iterdir())


def _remote_files(target: str, store: Store) -> frozenset[str]:
    try:
        return frozenset(file.path for file in store.list_source(target))
    except SourceError as error:
        # A prefix without files is the usual place for a new corpus; any other failure says what
        # it got.
        if error.got:
            raise
        return frozenset()


def _target(spec: PhantomsSpec) -> str:
    """The target as workers find it, wherever they run: absolute, without a trailing slash."""
    if _is_remote(spec.target):
        return spec.target.rstrip("/")
    return str(Path(spec.target.removeprefix("file://")).expanduser().resolve())


def _is_remote(target: str) -> bool:
    return target.startswith("s3://")
