"""The file for Ray's own launcher on AWS: by Ray's own checks, and by our rules."""

import copy
from collections.abc import Iterator

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.deploy.manifests import DEPLOY, Manifest, documents

STARTS = ("head_start_ray_commands", "worker_start_ray_commands")


@pytest.fixture
def config() -> Manifest:
    (one,) = documents(DEPLOY / "ray-up.yaml")
    return one


def wrong_in(config: Manifest) -> Iterator[str]:
    """What a launcher of ours must not do, and Ray's own checks let pass."""
    for key in STARTS:
        starts = [one for one in config[key] if "ray start" in one]
        if not starts or any("RAY_AUTH_MODE=token" not in one for one in starts):
            yield f"{key}: asks for no token"
    if "--dashboard-host=127.0.0.1" not in " ".join(config[STARTS[0]]):
        yield "the dashboard is not on loopback"
    for secret in (".ray/auth_token", ".config/rayward/pseudonym.key"):
        if config["file_mounts"].get(f"/home/ubuntu/{secret}") != f"~/{secret}":
            yield f"{secret} is not brought to the nodes"
    # Left out, Ray's defaults come in: an unpinned Ray from the network.
    if any(key not in config for key in ("setup_commands", "head_setup_commands")):
        yield "Ray's own set-up is not replaced"
    if not config["provider"].get("use_internal_ips"):
        yield "nodes have public addresses"
    if config["provider"].get("cache_stopped_nodes", True):
        yield "stopped nodes keep their disks"
    if config["available_node_types"][config["head_node_type"]]["resources"].get("CPU") != 0:
        yield "the head has CPUs for shards"
    for name, one in config["available_node_types"].items():
        yield from _wrong_in_nodes(name, one)


def _wrong_in_nodes(name: str, one: Manifest) -> Iterator[str]:
    node = one["node_config"]
    if "memory" not in one.get("resources", {}):
        yield f"{name}: memory is not set"
    if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
        yield f"{name}: credentials of the machine are open to any request"
    if not all(disk["Ebs"].get("Encrypted") for disk in node["BlockDeviceMappings"]):
        yield f"{name}: a disk is not encrypted"
    if name != "head" and node["IamInstanceProfile"] != {"Name": "rayward-worker"}:
        yield f"{name}: may do what the head may"
    if name.endswith("-spot") and node.get("InstanceMarketOptions") != {"MarketType": "spot"}:
        yield f"{name}: is no spot node"


def checked(config: Manifest) -> Manifest:
    prepared: Manifest = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_rays_own_checks_find_nothing(config: Manifest) -> None:
    prepared = checked(config)
    assert prepared["head_setup_commands"] == config["setup_commands"]
    assert "pip install" not in str(prepared)


def test_no_rule_is_broken(config: Manifest) -> None:
    assert list(wrong_in(config)) == []


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("idle_timeout", 5, jsonschema.ValidationError),
        ("max_workers", -1, jsonschema.ValidationError),
        ("upscaling_speed", "fast", jsonschema.ValidationError),
        ("setup_commands", "make setup", (jsonschema.ValidationError, TypeError)),
        ("head_node_type", "heads", ValueError),
        ("available_node_types cpu min_workers", 99, ValueError),
        ("available_node_types cpu resources CPU", "many", jsonschema.ValidationError),
        ("available_node_types cpu node_confg", {}, jsonschema.ValidationError),
        ("provider type", "azur", NotImplementedError),
    ],
)
def test_rays_own_checks_find(
    config: Manifest, path: str, value: object, error: type[Exception]
) -> None:
    _set(config, path, value)
    with pytest.raises(error):
        checked(config)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("head_start_ray_commands", ["ray start --head --dashboard-host=127.0.0.1"]),
        ("worker_start_ray_commands", ["ray start --address=$RAY_HEAD_IP:6379"]),
        ("head_start_ray_commands", ["RAY_AUTH_MODE=token ray start --dashboard-host=0.0.0.0"]),
        ("file_mounts", {}),
        ("available_node_types head resources", {"memory": 1}),
        ("available_node_types cpu resources", {"CPU": 16}),
        ("available_node_types cpu node_config MetadataOptions", {"HttpTokens": "optional"}),
        ("available_node_types cpu node_config IamInstanceProfile", {"Name": "rayward-head"}),
        ("available_node_types gpu-spot node_config InstanceMarketOptions", {}),
        ("provider use_internal_ips", False),
        ("provider cache_stopped_nodes", True),
    ],
)
def test_a_rule_finds(config: Manifest, path: str, value: object) -> None:
    _set(config, path, value)
    assert list(wrong_in(config)) != []


def _set(config: Manifest, path: str, value: object) -> None:
    *steps, last = path.split()
    for step in steps:
        config = config[step]
    config[last] = value
