"""JSON schemas of job specs and job files, and what they allow in plain words."""

from collections.abc import Mapping
from typing import Any

from schemas.specs import SPECS
from schemas.specs.night import NightSpec, NotifySpec
from schemas.yamltree import Path

Schema = Mapping[str, Any]

_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}


def kind_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of one kind of job."""
    return SPECS[kind].model_json_schema()


def job_file_schema() -> dict[str, Any]:
    """The JSON schema of a job file, for editors and other tools.

    It describes values after environment variables are expanded.
    """
    definitions: dict[str, Any] = {}
    kinds: list[dict[str, Any]] = []
    for kind in SPECS:
        schema = kind_schema(kind)
        definitions |= schema.pop("$defs", {})
        # Without `required`, a job without a kind would fit every kind.
        schema["required"] = ["kind", *schema.get("required", [])]
        definitions[kind] = schema
        kinds.append({"$ref": f"#/$defs/{kind}"})
    sections = {}
    for name, spec in (("night", NightSpec), ("notify", NotifySpec)):
        section = spec.model_json_schema()
        definitions |= section.pop("$defs", {})
        definitions[name] = section
        sections[name] = {"$ref": f"#/$defs/{name}"}
    lake = {"type": "string", "minLength": 1, "description": "A path, or s3://bucket/prefix."}
    changes = {"type": "object", "additionalProperties": {"type": "object"}}
    profile = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "lake": lake,
            **sections,
            "jobs": changes | {"description": "A job's name or kind to the fields it replaces."},
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rayward job file",
        "type": "object",
        "additionalProperties": False,
        "required": ["lake", "jobs"],
        "properties": {
            "lake": lake,
            **sections,
            "jobs": {"type": "array", "minItems": 1, "items": {"anyOf": kinds}},
            "profiles": {
                "type": "object",
                "additionalProperties": profile,
                "description": "Values that replace those above, chosen with --profile NAME.",
            },
        },
        "$defs": definitions,
    }


def schema_at(schema: Schema, path: Path) -> Schema | None:
    """The part of a kind's schema that describes the value at ``path``; none when there is none."""
    definitions = schema.get("$defs", {})
    here: Schema | None = schema
    for key in path:
        here = _step(here, key, definitions) if here is not None else None
    return _resolved(here, definitions) if here is not None else None


def _step(schema: Schema, key: str | int, definitions: Schema) -> Schema | None:
    schema = _resolved(schema, definitions)
    for option in schema.get("anyOf", ()):
        found = _step(option, key, definitions)
        if found is not None:
            return found
    if isinstance(key, int):
        first: list[Schema] = schema.get("prefixItems", [])
        return first[key] if key < len(first) else schema.get("items")
    found = schema.get("properties", {}).get(key)
    if found is None:
        found = schema.get("additionalProperties") or None
    return found


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def fields_of(schema: Schema, definitions: Schema) -> list[str]:
    """The fields of a mapping, in the order of the spec; none for other values."""
    schema = _resolved(schema, definitions)
    for option in schema.get("anyOf", ()):
        found = fields_of(option, definitions)
        if found:
            return found
    return list(schema.get("properties", ()))


def allowed_values(schema: Schema, definitions: Schema) -> str:
    """What a schema allows, in words: ``a whole number >= 1``, ``letterbox, stretch``."""
    schema = _resolved(schema, definitions)
    if "anyOf" in schema:
        return " or ".join(allowed_values(option, definitions) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "")
    if kind == "array":
        return _allowed_list(schema, definitions)
    if kind == "object":
        fields = fields_of(schema, definitions)
        if fields:
            return f"a mapping of {', '.join(fields)}"
        inner = schema.get("additionalProperties")
        values = allowed_values(inner, definitions) if isinstance(inner, Mapping) else "values"
        return f"a mapping of names to {values}"
    return _TYPES.get(kind, "any value") + _limits(schema)


def _allowed_list(schema: Schema, definitions: Schema) -> str:
    if "prefixItems" in schema:
        items = ", ".join(allowed_values(item, definitions) for item in schema["prefixItems"])
        return f"a list of {len(schema['prefixItems'])}: {items}"
    inner = allowed_values(schema.get("items", {}), definitions)
    return f"a list of: {inner}"


def _limits(schema: Schema) -> str:
    signs = {
        "minimum": ">=",
        "exclusiveMinimum": ">",
        "maximum": "<=",
        "exclusiveMaximum": "<",
    }
    ranges = [f"{sign} {schema[name]}" for name, sign in signs.items() if name in schema]
    text = f" {' and '.join(ranges)}" if ranges else ""
    if "pattern" in schema:
        text += f" matching {schema['pattern']}"
    if schema.get("minLength", 0) > 0:
        text += ", not empty"
    return text
