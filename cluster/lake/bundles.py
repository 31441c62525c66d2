"""Model bundles in the lake: written whole, then named by a pointer that is created once."""

import json
from collections.abc import Mapping

from cluster.storage import Storage
from schemas.errors import BundleError

_POINTER = "bundle.json"


def put_bundle(storage: Storage, name: str, files: Mapping[str, bytes], *, run_id: str) -> int:
    """Write a bundle under the next free version and return the version.

    A run that was cut off after it wrote its bundle finds it again instead of making another.
    The caller holds the lease on the name, so nobody else numbers versions meanwhile.
    """
    found = _versions(storage, name)
    for version, writer in found.items():
        if writer == run_id:
            return version
    version = max(found, default=0) + 1
    folder = bundle_folder(name, version)
    for path, data in files.items():
        storage.put(f"{folder}/{path}", data)
    pointer = {"run_id": run_id, "files": {path: len(data) for path, data in files.items()}}
    if not storage.claim(f"{folder}/{_POINTER}", json.dumps(pointer).encode()):
        raise BundleError(
            "Another run wrote this version of the bundle meanwhile",
            where=folder,
            remedy="run the job again",
        )
    return version


def bundle_folder(name: str, version: int) -> str:
    """Where a bundle lies below the lake's root."""
    return f"models/{name}/{version}"


def parse_reference(reference: str) -> tuple[str, int | None]:
    """Split ``name`` or ``name@version``; no version means the newest.

    Raises:
        BundleError: if the version is no number.
    """
    name, at, version = reference.partition("@")
    if at and not version.isdecimal():
        raise BundleError(
            "No such bundle",
            got=reference,
            remedy="name it NAME or NAME@VERSION, e.g. lungs@2",
        )
    return name, int(version) if at else None


def _versions(storage: Storage, name: str) -> dict[int, str]:
    """The run that wrote each finished version."""
    found = {}
    for entry in storage.list(f"models/{name}"):
        *_, version, file = entry.path.split("/")
        if file == _POINTER:
            found[int(version)] = json.loads(storage.get(entry.path))["run_id"]
    return found
