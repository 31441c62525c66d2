"""Validation against definitions: KubeRay's own, and those of Kubernetes' built-in kinds."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from tests.cluster.deploy.manifests import Manifest

FILES = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
FOREIGN = {"PodMonitor"}
"""Kinds of other operators, whose definitions are not to be had: rules hold them alone."""
_INT32 = 2**31


def closed(schema: Any) -> Any:
    """A definition as the API server reads it, for a validator that knows JSON Schema alone.

    An object takes no field it does not name (the server would drop it in silence), an
    int-or-string is not a float, an int32 has bounds.
    """
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    done = {key: closed(one) for key, one in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        done["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("format") == "int32":
        done.setdefault("minimum", -_INT32)
        done.setdefault("maximum", _INT32 - 1)
    is_object = schema.get("type") == "object" and isinstance(schema.get("properties"), dict)
    if is_object and not schema.get("x-kubernetes-preserve-unknown-fields"):
        done.setdefault("additionalProperties", False)
    return done


def _unique_keys(
    _validator: Any, keys: list[str], instance: Any, schema: Manifest
) -> Iterator[jsonschema.ValidationError]:
    """``x-kubernetes-list-map-keys``: two entries of a list must not share these keys' values."""
    properties = schema["items"].get("properties", {})
    seen = set()
    for one in instance if isinstance(instance, list) else []:
        values = tuple(one.get(key, properties.get(key, {}).get("default")) for key in keys)
        if values in seen:
            yield jsonschema.ValidationError(
                f"stands twice: {dict(zip(keys, values, strict=True))}"
            )
        seen.add(values)


_Validator = extend(Draft202012Validator, {"x-kubernetes-list-map-keys": _unique_keys})


def kuberay_validators(folder: Path) -> dict[str, Any]:
    """A validator for each kind, from KubeRay's definitions of version v1."""
    validators = {}
    for kind, file in FILES.items():
        definition = yaml.load((folder / file).read_text(), Loader=yaml.CSafeLoader)
        assert definition["spec"]["names"]["kind"] == kind
        (version,) = (one for one in definition["spec"]["versions"] if one["name"] == "v1")
        schema = closed(version["schema"]["openAPIV3Schema"])
        # The server itself holds names and labels; the definition leaves them open.
        schema["properties"]["metadata"] = {"type": "object"}
        validators[kind] = _Validator(schema)
    return validators


def against_kuberay(objects: list[Manifest], validators: dict[str, Any]) -> Iterator[str]:
    for one in objects:
        if one["kind"] not in validators:
            continue
        if one["apiVersion"] != "ray.io/v1":
            yield f"{one['kind']}: apiVersion {one['apiVersion']}"
        for error in validators[one["kind"]].iter_errors(one):
            yield f"{one['kind']} {error.json_path}: {error.message[:200]}"


def against_kubernetes(objects: list[Manifest], version: str) -> Iterator[str]:
    """What is wrong with the built-in kinds; the pods inside Ray's kinds are KubeRay's to check."""
    for one in objects:
        if one["kind"] in FILES or one["kind"] in FOREIGN:
            continue
        try:
            kubernetes_validate.validate(copy.deepcopy(one), version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{one['kind']}: no such kind in {one['apiVersion']}"
        except kubernetes_validate.ValidationError as error:
            yield f"{one['kind']} {'.'.join(map(str, error.path))}: {error.message[:200]}"
