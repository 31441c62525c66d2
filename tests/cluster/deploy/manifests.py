"""The manifests as objects: read strictly, found by kind and name, changed at a path."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
DEPLOY = CHECKOUT / "cluster" / "deploy"
KUBERAY = DEPLOY / "kuberay"

Manifest = dict[str, Any]


class StrictLoader(yaml.CSafeLoader):
    """Refuses a key that stands twice in a mapping; YAML itself takes the last without a word."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> Manifest:
    merged = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    twice = sorted({key for key in merged if merged.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def documents(path: Path) -> list[Manifest]:
    loaded = yaml.load_all(path.read_text(), Loader=StrictLoader)
    return [_unshared(one) for one in loaded]


def all_objects() -> list[Manifest]:
    """Everything that `kubectl apply -k` and the two Ray files bring."""
    return [_unshared(one) for one in _read_once()]


@cache
def _read_once() -> list[Manifest]:
    paths = [path for path in sorted(KUBERAY.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [one for path in paths for one in documents(path)]


def _unshared(value: Any) -> Any:
    """The same without anchors: a change stays where it is made."""
    if isinstance(value, dict):
        return {key: _unshared(one) for key, one in value.items()}
    return [_unshared(one) for one in value] if isinstance(value, list) else value


def find(objects: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    found = [
        one
        for one in objects
        if one["kind"] == kind and (name is None or one["metadata"]["name"] == name)
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


def of_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    return [one for one in objects if one["kind"] == kind]


def clusters(objects: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every RayCluster's spec, with the name of the object it stands in."""
    for one in of_kind(objects, "RayCluster"):
        yield f"RayCluster {one['metadata'].get('name')}", one["spec"]
    for one in of_kind(objects, "RayJob"):
        if "rayClusterSpec" in one["spec"]:
            yield f"RayJob {one['metadata'].get('name')}", one["spec"]["rayClusterSpec"]


def groups(spec: Manifest) -> Iterator[tuple[str, Manifest]]:
    """The head's group and those of the workers, by name."""
    yield "head", spec["headGroupSpec"]
    for group in spec.get("workerGroupSpecs", []):
        yield group.get("groupName", "?"), group


def pods(objects: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod template, with where it stands."""
    for where, spec in clusters(objects):
        for name, group in groups(spec):
            yield f"{where}, group {name}", group["template"]
    for one in of_kind(objects, "RayJob"):
        if "submitterPodTemplate" in one["spec"]:
            yield "RayJob, submitter", one["spec"]["submitterPodTemplate"]
    for one in of_kind(objects, "CronJob"):
        yield "CronJob", one["spec"]["jobTemplate"]["spec"]["template"]


def containers(pod: Manifest) -> list[Manifest]:
    spec = pod["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


REMOVED = object()


def change(objects: list[Manifest], kind: str, path: str, value: Any) -> None:
    """Set what stands at ``path`` of the first object of a kind; REMOVED takes it away.

    The steps of a path are parted by blanks; a number is a place in a list, ``+`` its end. ``kind``
    may name the object: ``NetworkPolicy/rayward-metrics``.
    """
    wanted, _, name = kind.partition("/")
    target: Any = next(
        one
        for one in objects
        if one["kind"] == wanted and (not name or one["metadata"]["name"] == name)
    )
    *steps, last = path.split()
    for step in steps:
        target = target[int(step)] if isinstance(target, list) else target.setdefault(step, {})
    if isinstance(target, list):
        if last == "+":
            target.append(value)
        else:
            target[int(last)] = value
    elif value is REMOVED:
        del target[last]
    else:
        target[last] = value
