"""Grids of settings: every combination of the values of some axes, and where each field came from.

An axis is a mapping of labels to fields, or a list of values of the one field that the axis is
named after (``optimizer.learning_rate`` names a nested one).
"""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Loc = tuple[str | int, ...]
"""The way to a value of a job: keys, and places in lists."""
Settings = Mapping[str, Any]
"""Fields, nested as in a job file."""
Axis = Mapping[str, Settings] | Sequence[Any]

LONGEST_NAME = 100
"""Characters of a name at most, see `schemas.specs.base.Name`."""
_DIGEST = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Layer:
    """Fields one place of a job sets."""

    fields: Settings
    here: Loc
    """The place in the job."""
    depth: int = 0
    """How many keys of ``fields`` the place stands for, for a value of a named field."""

    def place_of(self, path: Loc) -> Loc | None:
        """Where this layer says what ``path`` is; none where it does not."""
        value: Any = self.fields
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
            if not isinstance(value, Mapping):
                break
        return (*self.here, *path[self.depth :])


@dataclass(frozen=True)
class Point:
    """One combination of a grid."""

    labels: Mapping[str, str]
    """Label by axis."""
    layers: tuple[Layer, ...]
    """What sets its fields, a later one over an earlier one."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the combination."""
        merged: dict[str, Any] = {}
        for layer in self.layers:
            merged = merge(merged, layer.fields)
        return merged

    def place_of(self, path: Loc) -> Loc:
        """Where in the job the value at ``path`` of the fields was set.

        What no layer sets belongs to the first.
        """
        places = [layer.place_of(path) for layer in reversed(self.layers)]
        return next((place for place in places if place), (*self.layers[0].here, *path))

    def key_of(self, path: Loc) -> Loc:
        """Like `place_of`, of a field that does not exist: an axis named after one is its place."""
        for layer in reversed(self.layers):
            place = layer.place_of(path)
            if place:
                return layer.here[:-1] if layer.depth else place
        return self.place_of(path)

    @property
    def text(self) -> str:
        """The labels as people read them: ``backbone=VGG-16, fold=0``."""
        return ", ".join(f"{axis}={label}" for axis, label in self.labels.items())


def points(
    base: Settings, grid: Mapping[str, Axis], *, base_loc: Loc, grid_loc: Loc
) -> list[Point]:
    """Every combination of the axes over the ``base``, the last axis varying fastest."""
    sides = [
        [(name, label, layer) for label, layer in _values(name, axis, (*grid_loc, name))]
        for name, axis in grid.items()
    ]
    return [
        Point(
            labels={name: label for name, label, _ in chosen},
            layers=(Layer(base, base_loc), *(layer for _, _, layer in chosen)),
        )
        for chosen in itertools.product(*sides)
    ]


def labels_of(axis: Axis) -> list[str]:
    """The labels of an axis in their order."""
    return list(axis) if isinstance(axis, Mapping) else [label_of(value) for value in axis]


def _values(name: str, axis: Axis, here: Loc) -> list[tuple[str, Layer]]:
    if isinstance(axis, Mapping):
        return [(label, Layer(fields, (*here, label))) for label, fields in axis.items()]
    path = name.split(".")
    return [
        (label_of(value), Layer(_nested(path, value), (*here, place), depth=len(path)))
        for place, value in enumerate(axis)
    ]


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    fields: dict[str, Any] = value
    return fields


def label_of(value: Any) -> str:
    """A value as a label: as it stands in a job file, the items of a list joined by ``+``."""
    if isinstance(value, list | tuple):
        return "+".join(label_of(one) for one in value) or "none"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def merge(base: Settings, over: Settings) -> dict[str, Any]:
    """``over`` on top of ``base``: mappings entry by entry, anything else replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        there = merged.get(key)
        if isinstance(there, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(there, value)
        else:
            merged[key] = value
    return merged


def trial_name(study: str, point: Point, *more: str) -> str:
    """The name of a trial and of its bundle; the same whatever other trials there are."""
    words = [
        f"{axis.rpartition('.')[2]}{label}" if layer.depth else label
        for (axis, label), layer in zip(point.labels.items(), point.layers[1:], strict=True)
    ]
    return safe_name([study, *words, *more])


def safe_name(words: Sequence[str]) -> str:
    """Words as a name that is safe in paths, at most `LONGEST_NAME` characters long.

    A name depends on its own words alone. Where words can't stand in it as they are, a hash of
    them tells it from others.
    """
    plain = "-".join(words)
    clean = "-".join(_UNSAFE.sub("-", word).strip("-") or "x" for word in words).lstrip("._-")
    if clean == plain and len(plain) <= LONGEST_NAME:
        return plain
    digest = hashlib.blake2b(json.dumps(list(words)).encode(), digest_size=_DIGEST // 2)
    return f"{clean[: LONGEST_NAME - _DIGEST - 1]}-{digest.hexdigest()}"
