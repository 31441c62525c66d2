"""Specs within specs: fields of one kind that another kind passes on, checked where they stand."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError

from schemas.grids import Loc, Point, Settings
from schemas.specs.base import JobSpec

DESCRIBED_AS = "described_as"
"""In an error's context: where the job's schema describes the value, when not where it stands."""
OPTIONS = "options"
"""In an error's context: what may stand there, when a schema can't say it."""


class FieldsOf:
    """Says in a JSON schema that a mapping holds fields of another kind of job."""

    def __init__(self, spec: type[JobSpec], without: Iterable[str]) -> None:
        self._spec, self._without = spec, frozenset(without)

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        inner: Any = self._spec.__pydantic_core_schema__
        whole = handler.resolve_ref_schema(handler(inner))
        fields = {
            name: one for name, one in whole["properties"].items() if name not in self._without
        }
        return {"type": "object", "additionalProperties": False, "properties": fields}


class Findings:
    """Mistakes found in the fields of a job, each once, with the place of the value."""

    def __init__(self) -> None:
        self._found: dict[tuple[Loc, str], InitErrorDetails] = {}

    def note(self, loc: Loc, what: str, options: Iterable[str] = ()) -> None:
        """Note that the value at ``loc`` is wrong, and what may stand there."""
        self._add(loc, "value_error", what, {"error": what, OPTIONS: tuple(options)})

    def note_details(self, loc: Loc, details: ErrorDetails, described_as: Loc) -> None:
        """Note an error of a nested spec under the place where its value stands."""
        context = {key: _plain(value) for key, value in details.get("ctx", {}).items()}
        context[DESCRIBED_AS] = described_as
        self._add(loc, details["type"], details["msg"], context)

    def _add(self, loc: Loc, kind: str, message: str, context: dict[str, Any]) -> None:
        # Braces of a message would be taken for names of its context.
        text = message.replace("{", "(").replace("}", ")")
        error = PydanticCustomError(kind, text, context)
        details = InitErrorDetails(type=error, loc=loc, input=None)
        self._found.setdefault((loc, message), details)

    def raise_any(self, title: str) -> None:
        """Raise what was found, if anything.

        Raises:
            ValidationError: with every mistake at its place; pydantic hands it on as it is.
        """
        if self._found:
            raise ValidationError.from_exception_data(title, list(self._found.values()))


def check_fields(
    spec: type[JobSpec], rest: Settings, fields: Settings, here: Loc, findings: Findings
) -> None:
    """Check fields of a kind that stand at ``here``; ``rest`` completes the job."""
    for details in errors_of(spec, {**rest, **fields}):
        loc = details["loc"]
        findings.note_details((*here, *loc), details, (*here, *loc))


def check_point(
    spec: type[JobSpec], rest: Settings, point: Point, here: Loc, findings: Findings
) -> None:
    """Check the fields of a combination, whose base stands at ``here``."""
    for details in errors_of(spec, {**rest, **point.fields}):
        path = details["loc"]
        place = point.place_of(path)
        if not path:
            place = _to_blame(spec, rest, point, details["msg"])
        elif details["type"] == "extra_forbidden":
            place = point.key_of(path)
        findings.note_details(place, details, (*here, *path))


def _to_blame(spec: type[JobSpec], rest: Settings, point: Point, message: str) -> Loc:
    """Where a mistake of several fields together comes from: the base, or the axis that brings it.

    Where it takes two axes, the last one.
    """
    base, *others = point.layers
    for layers in ((base,), *((base, other) for other in others)):
        fields = Point({}, layers).fields
        if message in [one["msg"] for one in errors_of(spec, {**rest, **fields})]:
            return layers[-1].here
    return point.layers[-1].here


def errors_of(spec: type[JobSpec], fields: Settings) -> list[ErrorDetails]:
    """What is wrong with the fields of a job, as strictly as for a job of its own."""
    try:
        spec.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        return of_values(error.errors(include_url=False, include_input=False), fields)
    return []


def of_values(errors: Sequence[ErrorDetails], data: Settings) -> list[ErrorDetails]:
    """Errors of pydantic with paths of the data alone, and one for each value.

    Where a value may be one of several things, pydantic tells an error of each and puts a name of
    the alternative into the path. The one that says most counts: an error of something within the
    value, or of its range rather than its type.
    """
    placed = [(_path_in(data, one), one) for one in errors]
    alternatives = [(path, one) for path, one in placed if path != one["loc"]]
    kept: dict[tuple[Loc, int], ErrorDetails] = {}
    for number, (path, one) in enumerate(placed):
        is_alternative = path != one["loc"]
        others = alternatives if is_alternative else []
        if not any(_says_more(*other, path, one) for other in others if other[1] is not one):
            key = (path, -1 if is_alternative else number)
            kept.setdefault(key, ErrorDetails(**{**one, "loc": path}))
    return list(kept.values())


def _says_more(path: Loc, error: ErrorDetails, other: Loc, than: ErrorDetails) -> bool:
    if path == other:
        return _is_vague(than) and not _is_vague(error)
    return len(path) > len(other) and path[: len(other)] == other


def _is_vague(error: ErrorDetails) -> bool:
    return error["type"].endswith(("literal_error", "_type"))


def _path_in(data: Any, error: ErrorDetails) -> Loc:
    """The keys of an error's path that the data has; one that is missing ends it all the same."""
    if {DESCRIBED_AS, OPTIONS} & set(error.get("ctx", {})):
        return error["loc"]  # noted by `Findings`, where it belongs
    path: list[str | int] = []
    for place, key in enumerate(error["loc"]):
        known = isinstance(data, Mapping) and key in data
        if known or (isinstance(data, list) and isinstance(key, int) and key < len(data)):
            data = data[key]
            path.append(key)
        elif error["type"] == "missing" and place == len(error["loc"]) - 1:
            path.append(key)
    return tuple(path)


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str) else str(value)
