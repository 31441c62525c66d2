"""From a job's tree to its spec, or to every mistake in it."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.errors import Mistake
from schemas.jobschema import allowed_values, fields_of, schema_at
from schemas.jobtree import NAMELESS, hint, shown, unknown_field
from schemas.specs import SPECS, JobSpec
from schemas.specs.base import Spec
from schemas.specs.nested import DESCRIBED_AS, OPTIONS, of_values
from schemas.yamltree import Expansion, Node, Path

_WHAT = {
    "greater_than": "is out of range",
    "greater_than_equal": "is out of range",
    "less_than": "is out of range",
    "less_than_equal": "is out of range",
    "string_too_short": "is empty",
    "too_short": "has the wrong length",
    "too_long": "has the wrong length",
}
"""Pydantic's types of errors in our words; ranges and lengths stand in what is allowed."""
_LAKE = "a path, or s3://bucket/prefix"
_Section = TypeVar("_Section", bound=Spec)


def check_lake(node: Node | None, document: Node, expansion: Expansion) -> str:
    """Where the lake lies; empty, with a mistake in ``expansion``, when that is not said."""
    if node is None:
        expansion.mistakes.append(document.mistake(("lake",), "is missing", allowed=_LAKE))
        return ""
    value = expansion.value(node, ("lake",))
    if ("lake",) in expansion.unknown:
        return ""
    scheme = value.partition("://")[0] if isinstance(value, str) and "://" in value else "file"
    if not isinstance(value, str) or not value or scheme not in ("s3", "file"):
        got = shown(node, expansion.env)
        what = "is no place for a lake"
        expansion.mistakes.append(node.mistake(("lake",), what, got=got, allowed=_LAKE))
        return ""
    return value


def check_job(name: str, node: Node, expansion: Expansion) -> JobSpec | None:
    """Validate one job; none, with every mistake in ``expansion``, when it is wrong."""
    path: Path = (name,) if name.startswith(NAMELESS) else ("jobs", name)
    data = expansion.value(node, path)
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in SPECS:
        if (*path, "kind") not in expansion.unknown:
            expansion.mistakes.append(_kind_mistake(node, path))
        return None
    return _validated(SPECS[kind], data, node, path, expansion)


def check_section(
    spec: type[_Section], name: str, node: Node, expansion: Expansion
) -> _Section | None:
    """Validate a section that is said of all jobs; none, with every mistake, when it is wrong."""
    data = expansion.value(node, (name,))
    if not isinstance(data, dict):
        allowed = f"a mapping of {', '.join(spec.model_fields)}"
        what, got = "is no mapping", shown(node, expansion.env)
        expansion.mistakes.append(node.mistake((name,), what, got=got, allowed=allowed))
        return None
    return _validated(spec, data, node, (name,), expansion)


def _validated(
    spec: type[_Section], data: dict[str, Any], node: Node, path: Path, expansion: Expansion
) -> _Section | None:
    try:
        # Strict, from JSON: 3 is no text, "3" no number, and true no number.
        return spec.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        schema = spec.model_json_schema()
        for details in of_values(error.errors(include_url=False), data):
            if not _follows(details, path, expansion):
                mistake = _field_mistake(node, path, details, schema, expansion.env)
                expansion.mistakes.append(mistake)
        return None


def _kind_mistake(node: Node, path: Path) -> Mistake:
    given = node.child("kind")
    allowed = ", ".join(SPECS)
    if given is None:
        return node.mistake((*path, "kind"), "is missing", allowed=allowed)
    what = f"is no kind of job{hint(str(given.value), SPECS)}"
    return given.mistake((*path, "kind"), what, got=shown(given), allowed=allowed)


def _follows(details: ErrorDetails, path: Path, expansion: Expansion) -> bool:
    """Whether an error only follows from a mistake that is noted already."""
    whole = (*path, *details["loc"])
    noted = any(whole[: len(unknown)] == unknown for unknown in expansion.unknown)
    return noted or details["type"] == "default_factory_not_called"


def _field_mistake(
    node: Node,
    path: Path,
    details: ErrorDetails,
    schema: Mapping[str, Any],
    env: Mapping[str, str],
) -> Mistake:
    definitions = schema.get("$defs", {})
    loc = details["loc"]
    place = node.find(loc)
    whole = (*path, *loc)
    # Where a study's axis sets a field, it is the field's own description that says what may stand.
    context = details.get("ctx", {})
    described_as = context.get(DESCRIBED_AS, loc)
    if details["type"] == "extra_forbidden":
        parent = schema_at(schema, described_as[:-1]) or schema
        return unknown_field(place, whole, fields_of(parent, definitions))
    described = schema_at(schema, described_as)
    allowed = allowed_values(described, definitions) if described else ""
    if details["type"] == "missing":
        return place.mistake(whole, "is missing", allowed=allowed)
    what = _what(details, place, described or {})
    options = context.get(OPTIONS, ())
    if options:
        what, allowed = f"{what}{hint(str(place.value), options)}", ", ".join(options)
    return place.mistake(whole, what, got=shown(place, env), allowed=allowed)


def _what(details: ErrorDetails, place: Node, described: Mapping[str, Any]) -> str:
    kind = details["type"]
    if kind == "value_error":
        return str(details["ctx"]["error"])
    if kind in ("literal_error", "enum"):
        options = [str(option) for option in described.get("enum", ())]
        return f"is not one of the allowed values{hint(str(place.value), options)}"
    if kind == "string_pattern_mismatch":
        return "has characters that are not allowed here" if place.value else "is empty"
    if kind == "string_type" and isinstance(place.value, str) and place.value:
        return "has the wrong type; put text that looks like a number or a word in quotes"
    if kind.endswith(("_type", "_parsing", "_from_float")):
        return "has the wrong type"
    return _WHAT.get(kind, details["msg"])
