"""The manifests hold to KubeRay's definitions, to Kubernetes' schemas and to every rule."""

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.cluster.deploy import rules_house, rules_operator, units
from tests.cluster.deploy.definitions import against_kuberay, against_kubernetes
from tests.cluster.deploy.manifests import (
    CHECKOUT,
    KUBERAY,
    Manifest,
    StrictLoader,
    documents,
    find,
)

RULES = rules_operator.RULES | rules_house.RULES


def test_there_is_one_of_each_kind_that_a_deployment_needs(objects: list[Manifest]) -> None:
    kinds = {one["kind"] for one in objects}
    assert {"RayCluster", "RayJob", "CronJob", "NetworkPolicy", "PodMonitor", "Namespace"} <= kinds


def test_the_ray_objects_hold_to_the_operators_definitions(
    objects: list[Manifest], kuberay: dict[str, Any]
) -> None:
    assert list(against_kuberay(objects, kuberay)) == []


@pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
def test_the_built_in_kinds_hold_to_kubernetes_schemas(
    objects: list[Manifest], version: str
) -> None:
    assert list(against_kubernetes(objects, version)) == []


@pytest.mark.parametrize("name", RULES)
def test_no_rule_is_broken(name: str, objects: list[Manifest]) -> None:
    assert list(RULES[name](objects)) == []


def test_kustomize_names_every_file_but_the_cluster_that_stays(objects: list[Manifest]) -> None:
    (kustomization,) = documents(KUBERAY / "kustomization.yaml")
    (generated,) = kustomization["configMapGenerator"]
    named = {*kustomization["resources"], *generated["files"], "kustomization.yaml"}
    assert {path.name for path in KUBERAY.iterdir()} - named == {"raycluster.yaml"}
    volumes = find(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"]
    assert volumes == [{"name": "job", "configMap": {"name": generated["name"]}}]
    assert kustomization["generatorOptions"]["disableNameSuffixHash"] is True


def test_kustomize_builds_what_the_launcher_reads(objects: list[Manifest]) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl here: the kustomization is checked by its fields alone")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERAY)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    launched = find(built, "ConfigMap", "rayward-nightly-job")["data"]["rayjob.yaml"]
    assert yaml.safe_load(launched) == find(objects, "RayJob")
    assert len(built) == len(objects) - 2 + 1  # Ray's two kinds are not applied, the map is made


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(yaml.constructor.ConstructorError, match=re.escape("twice: ['a']")):
        yaml.load("{a: 1, b: 2, a: 3}", Loader=StrictLoader)


def test_the_night_finds_every_variable_of_its_job_file(objects: list[Manifest]) -> None:
    """A variable that nobody sets would take the job file's default, a folder of the container."""
    asked = set(re.findall(r"\$\{(\w+)", (CHECKOUT / "studies" / "nightly.yaml").read_text()))
    assert "LAKE" in asked
    assert asked <= set(find(objects, "ConfigMap", "rayward")["data"])
    assert asked <= set(units.environment())
