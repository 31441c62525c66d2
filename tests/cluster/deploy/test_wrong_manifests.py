"""Every wrong manifest is caught, by the check that is there for it."""

from typing import Any, NamedTuple

import pytest

from tests.cluster.deploy import rules_house, rules_operator
from tests.cluster.deploy.definitions import against_kuberay, against_kubernetes
from tests.cluster.deploy.manifests import REMOVED, Manifest, change, of_kind

RULES = rules_operator.RULES | rules_house.RULES
DEFINITION, SCHEMA = "KubeRay's definition", "Kubernetes' schema"


class Wrong(NamedTuple):
    """One change that makes a manifest wrong, and the check that must find it."""

    check: str
    kind: str
    path: str
    value: Any


HEAD = "spec headGroupSpec"
POD = f"{HEAD} template spec"
RAY = f"{POD} containers 0"
GPU = "spec workerGroupSpecs 1"
SPOT = f"{GPU} template spec"
CRON = "spec jobTemplate spec"
LAUNCH = f"{CRON} template spec"
RULE = "spec deletionStrategy deletionRules"
METRICS = "NetworkPolicy/rayward-metrics"
OPEN = "NetworkPolicy/rayward-cluster"


def rule(policy: str, ttl: int = 0, **condition: str) -> Manifest:
    return {"policy": policy, "condition": {**condition, "ttlSeconds": ttl}}


WRONG = [
    # What KubeRay's definitions hold.
    Wrong(DEFINITION, "RayCluster", f"{HEAD} replicas", 1),
    Wrong(DEFINITION, "RayCluster", "spec headGroupSpecs", {}),
    Wrong(DEFINITION, "RayCluster", HEAD, REMOVED),
    Wrong(DEFINITION, "RayCluster", f"{HEAD} rayStartParams num-cpus", 0),
    Wrong(DEFINITION, "RayCluster", f"{RAY} resources limits memory", 8.5),
    Wrong(DEFINITION, "RayCluster", f"{RAY} resources limits memory", "8 GB"),
    Wrong(DEFINITION, "RayCluster", f"{RAY} env +", {"name": "RAY_AUTH_MODE", "value": "token"}),
    Wrong(DEFINITION, "RayCluster", f"{RAY} env 0 value", True),
    Wrong(DEFINITION, "RayCluster", f"{POD} securityContext runAsRoot", False),
    Wrong(DEFINITION, "RayCluster", "spec authOptions mode", "tokens"),
    Wrong(DEFINITION, "RayCluster", "spec autoscalerOptions version", "v3"),
    Wrong(DEFINITION, "RayCluster", "spec autoscalerOptions idleTimeoutSeconds", 2**31),
    Wrong(DEFINITION, "RayCluster", f"{GPU} maxReplica", 4),
    Wrong(DEFINITION, "RayCluster", f"{SPOT} tolerations 0 effects", "NoSchedule"),
    Wrong(DEFINITION, "RayCluster", "apiVersion", "ray.io/v1alpha1"),
    Wrong(DEFINITION, "RayJob", "spec entryPoint", "rayward --help"),
    Wrong(DEFINITION, "RayJob", "spec backoffLimit", "2"),
    Wrong(DEFINITION, "RayJob", "spec rayClusterConfig", {}),
    Wrong(DEFINITION, "RayJob", f"{RULE} 0 policy", "DeletePods"),
    Wrong(DEFINITION, "RayJob", RULE, []),
    Wrong(DEFINITION, "RayJob", f"{RULE} 0", rule("DeleteCluster", jobStatus="STOPPED")),
    Wrong(DEFINITION, "RayJob", f"{RULE} 0", rule("DeleteCluster", -1, jobStatus="SUCCEEDED")),
    # What Kubernetes' schemas hold.
    Wrong(SCHEMA, "CronJob", "spec concurrencypolicy", "Forbid"),
    Wrong(SCHEMA, "CronJob", "spec schedule", REMOVED),
    Wrong(SCHEMA, "CronJob", "spec startingDeadlineSeconds", "6h"),
    Wrong(SCHEMA, "CronJob", "spec timezone", "Etc/UTC"),
    Wrong(SCHEMA, "CronJob", "apiVersion", "batch/v1beta1"),
    Wrong(SCHEMA, "CronJob", f"{LAUNCH} containers 0 command", "python"),
    Wrong(SCHEMA, METRICS, "spec ingress 0 form", []),
    Wrong(SCHEMA, METRICS, "spec ingress 0 ports 0 port", [8080]),
    Wrong(SCHEMA, "Role", "rules 0 verb", ["create"]),
    Wrong(SCHEMA, "RoleBinding", "roleRef", REMOVED),
    Wrong(SCHEMA, "ConfigMap", "data TRIES", 3),
    # What the operator checks beyond its definitions.
    Wrong("names", "RayJob", "metadata name", "n" * 48),
    Wrong("names", "RayCluster", "metadata name", "n" * 54),
    Wrong("names", "RayCluster", "metadata name", "1-rayward"),
    Wrong("names", "CronJob", "metadata name", "n" * 53),
    Wrong("names", "RayCluster", f"{GPU} groupName", "cpu"),
    Wrong("names", "RayCluster", f"{GPU} groupName", "GPU_spot"),
    Wrong("authentication", "RayCluster", "spec rayVersion", REMOVED),
    Wrong("authentication", "RayCluster", "spec rayVersion", "2.51.1"),
    Wrong("authentication", "RayCluster", "spec rayVersion", "latest"),
    Wrong("authentication", "RayCluster", "spec authOptions", REMOVED),
    Wrong("authentication", "RayJob", "spec rayClusterSpec authOptions mode", "disabled"),
    Wrong("deletion", "RayJob", "spec shutdownAfterJobFinishes", True),
    Wrong("deletion", "RayJob", "spec ttlSecondsAfterFinished", 60),
    Wrong("deletion", "RayJob", "spec deletionStrategy onSuccess", {"policy": "DeleteSelf"}),
    Wrong("deletion", "RayJob", "spec deletionStrategy", {}),
    Wrong("deletion", "RayJob", f"{RULE} +", rule("DeleteSelf", 9, jobStatus="FAILED")),
    Wrong("deletion", "RayJob", f"{RULE} 0", rule("DeleteCluster", 20000, jobStatus="SUCCEEDED")),
    Wrong("deletion", "RayJob", f"{RULE} 0", rule("DeleteWorkers", jobStatus="SUCCEEDED")),
    Wrong("deletion", "RayJob", f"{RULE} 0 condition jobDeploymentStatus", "Failed"),
    Wrong("deletion", "RayJob", f"{RULE} 0", rule("DeleteCluster")),
    Wrong("suspension", "RayJob", "spec suspend", True),
    Wrong("suspension", "RayCluster", f"{GPU} suspend", True),
    Wrong("autoscaler", "RayCluster", "spec enableInTreeAutoscaling", False),
    Wrong("autoscaler", "RayCluster", "spec autoscalerOptions version", "v1"),
    Wrong("autoscaler", "RayCluster", f"{POD} restartPolicy", "Always"),
    Wrong("autoscaler", "RayCluster", f"{SPOT} restartPolicy", "OnFailure"),
    Wrong("autoscaler", "RayCluster", f"{GPU} minReplicas", 5),
    Wrong("autoscaler", "RayCluster", f"{RAY} env 0", {"name": "RAY_enable_autoscaler_v2"}),
    Wrong("start parameters", "RayCluster", f"{HEAD} resources", {"CPU": "0"}),
    Wrong("start parameters", "RayCluster", f"{HEAD} rayStartParams labels", "a=b"),
    Wrong("start parameters", "RayCluster", f"{GPU} rayStartParams resources", '{"x": 1}; id'),
    Wrong("submission", "RayJob", "spec entrypoint", "rayward run x.yaml --lake $LAKE"),
    Wrong("submission", "RayJob", "spec entrypoint", "rayward run x.yaml || true"),
    Wrong("submission", "RayJob", "spec entrypoint", REMOVED),
    Wrong("submission", "RayJob", "spec submissionMode", "SidecarMode"),
    Wrong("submission", "RayJob", "spec submissionMode", "InteractiveMode"),
    Wrong("submission", "RayJob", "spec submissionMode", "KubernetesJob"),
    Wrong("submission", "RayJob", "spec rayClusterSpec", REMOVED),
    Wrong("submission", "RayJob", "spec clusterSelector", {"ray.io/cluster": "rayward"}),
    Wrong("submission", "RayJob", "spec activeDeadlineSeconds", 0),
    Wrong("fault tolerance", "RayCluster", f"{RAY} env 0 name", "RAY_REDIS_ADDRESS"),
    # What our own manifests promise.
    Wrong("head takes no shards", "RayCluster", f"{HEAD} rayStartParams num-cpus", REMOVED),
    Wrong("memory", "RayCluster", f"{RAY} resources limits memory", REMOVED),
    Wrong("memory", "RayCluster", f"{RAY} resources requests memory", "2Gi"),
    Wrong("memory", "RayCluster", f"{GPU} rayStartParams object-store-memory", REMOVED),
    Wrong("memory", "RayCluster", f"{GPU} rayStartParams object-store-memory", str(2**40)),
    Wrong("images", "RayCluster", f"{RAY} image", "rayward:latest"),
    Wrong("images", "RayCluster", f"{RAY} image", "rayward:0.1.0-gpu"),
    Wrong("images", "RayCluster", f"{RAY} image", "elsewhere.example/rayward:0.1.0"),
    Wrong("images", "CronJob", f"{LAUNCH} containers 0 image", "rayward:0.0.9"),
    Wrong("images", "RayJob", "spec rayClusterSpec rayVersion", "2.59.0"),
    Wrong("locked pods", "RayCluster", f"{POD} securityContext runAsNonRoot", False),
    Wrong("locked pods", "RayCluster", f"{POD} securityContext runAsUser", 0),
    Wrong("locked pods", "RayCluster", f"{POD} securityContext seccompProfile", REMOVED),
    Wrong("locked pods", "RayCluster", f"{POD} hostNetwork", True),
    Wrong("locked pods", "RayCluster", f"{POD} volumes +", {"name": "x", "hostPath": {}}),
    Wrong("locked pods", "RayCluster", f"{RAY} securityContext privileged", True),
    Wrong("locked pods", "RayCluster", f"{RAY} securityContext capabilities drop", ["NET_RAW"]),
    Wrong("locked pods", "RayCluster", "spec autoscalerOptions securityContext", {}),
    Wrong("locked pods", "RayJob", "spec submitterPodTemplate spec securityContext", {}),
    Wrong("accounts", "RayCluster", f"{POD} serviceAccountName", REMOVED),
    Wrong("accounts", "RayCluster", f"{SPOT} automountServiceAccountToken", REMOVED),
    Wrong("launcher rights", "Role", "rules 0 verbs", ["create", "delete"]),
    Wrong("launcher rights", "Role", "rules 0 resources", ["*"]),
    Wrong("launcher rights", "RoleBinding", "subjects 0 name", "rayward-worker"),
    Wrong("launcher rights", "RoleBinding", "roleRef name", "cluster-admin"),
    Wrong("launcher rights", "RoleBinding", "roleRef kind", "ClusterRole"),
    Wrong("nothing in the clear", "ConfigMap", "data AWS_SECRET_ACCESS_KEY", "x"),
    Wrong("nothing in the clear", "RayCluster", f"{RAY} env +", {"name": "S3_TOKEN", "value": "x"}),
    Wrong("nothing in the clear", "ConfigMap", "data RAYWARD_NOTIFY_URLS", "mailto://u:p@x"),
    Wrong("nothing in the clear", "ConfigMap", "kind", "Secret"),
    Wrong("environment", "RayCluster", f"{RAY} env 0 value", "disabled"),
    Wrong("environment", "RayCluster", f"{POD} initContainers 0 command 2", "0444"),
    Wrong("environment", "RayCluster", f"{POD} volumes 1 emptyDir", {}),
    Wrong("environment", "RayCluster", f"{RAY} env 2 value", "/tmp/other.key"),
    Wrong("environment", "RayCluster", f"{SPOT} containers 0 envFrom", []),
    Wrong("spot", "RayCluster", f"{SPOT} tolerations", []),
    Wrong("spot", "RayCluster", f"{SPOT} affinity", REMOVED),
    Wrong("spot", "RayCluster", f"{GPU} minReplicas", 1),
    Wrong("slots", "RayCluster", "spec workerGroupSpecs 0 minReplicas", 0),
    Wrong("slots", "RayJob", "spec rayClusterSpec workerGroupSpecs", []),
    Wrong("night", "CronJob", "spec concurrencyPolicy", "Allow"),
    Wrong("night", "CronJob", "spec startingDeadlineSeconds", REMOVED),
    Wrong("night", "CronJob", "spec startingDeadlineSeconds", 30),
    Wrong("night", "CronJob", "spec timeZone", "Europe/Atlantis"),
    Wrong("night", "CronJob", "spec schedule", "*/5 1 * * *"),
    Wrong("night", "CronJob", f"{CRON} activeDeadlineSeconds", REMOVED),
    Wrong("night", "RayJob", "metadata generateName", "rayward-"),
    Wrong("night", "RayJob", "spec activeDeadlineSeconds", REMOVED),
    Wrong("night", "RayJob", "spec backoffLimit", 0),
    Wrong("night", "RayJob", f"{RULE} 3 condition ttlSeconds", 80000),
    Wrong("night", "RayJob", f"{RULE} 5 policy", "DeleteNone"),
    Wrong("network", METRICS, "spec ingress 0 from", []),
    Wrong("network", METRICS, "spec ingress 0 from", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
    Wrong("network", METRICS, "spec ingress 0 ports 0 port", 6379),
    Wrong("network", METRICS, "spec ingress 0 ports", REMOVED),
    Wrong("network", METRICS, "spec ingress 0 from 0 namespaceSelector", {}),
    Wrong("network", OPEN, "spec policyTypes", ["Egress"]),
    Wrong("network", OPEN, "spec policyTypes", ["Ingress"]),
    Wrong("network", OPEN, "spec ingress 0 from 0 podSelector", {}),
    Wrong("network", OPEN, "spec ingress 0 from", [{"namespaceSelector": {}}]),
    Wrong("network", OPEN, "spec podSelector matchLabels", {"app.kubernetes.io/name": "ray"}),
    Wrong("network", "NetworkPolicy/rayward-operator", "spec ingress 0 ports 0 port", 10001),
    Wrong("network", "RayCluster", f"{HEAD} template metadata labels", {}),
    Wrong("monitoring", "PodMonitor", "spec podMetricsEndpoints 0 port", "metric"),
    Wrong("monitoring", "PodMonitor", "spec selector matchLabels", {"app": "ray"}),
    Wrong("monitoring", "RayCluster", f"{RAY} ports 2 containerPort", 9090),
    Wrong("exposure", "RayCluster", f"{HEAD} serviceType", "LoadBalancer"),
    Wrong("exposure", "RayCluster", f"{HEAD} enableIngress", True),
    Wrong("namespace", "Namespace", "metadata labels", {}),
    Wrong("namespace", "RayJob", "metadata namespace", "default"),
    Wrong("alike", "RayCluster", f"{GPU} maxReplicas", 64),
]


def _id(one: Wrong) -> str:
    value = "removed" if one.value is REMOVED else str(one.value)[:30]
    return f"{one.check}: {one.kind} {one.path.removeprefix('spec ')} {value}"


@pytest.mark.parametrize("wrong", [one for one in WRONG if one.check in RULES], ids=_id)
def test_a_rule_finds(wrong: Wrong, objects: list[Manifest]) -> None:
    assert list(RULES[wrong.check](objects)) == []
    change(objects, wrong.kind, wrong.path, wrong.value)
    assert list(RULES[wrong.check](objects)) != []


@pytest.mark.parametrize("wrong", [one for one in WRONG if one.check == DEFINITION], ids=_id)
def test_the_operators_definition_finds(
    wrong: Wrong, objects: list[Manifest], kuberay: dict[str, Any]
) -> None:
    change(objects, wrong.kind, wrong.path, wrong.value)
    assert list(against_kuberay(of_kind(objects, wrong.kind), kuberay)) != []


@pytest.mark.parametrize("wrong", [one for one in WRONG if one.check == SCHEMA], ids=_id)
def test_the_schemas_of_kubernetes_find(wrong: Wrong, objects: list[Manifest]) -> None:
    change(objects, wrong.kind, wrong.path, wrong.value)
    changed = of_kind(objects, wrong.kind.partition("/")[0])
    assert list(against_kubernetes(changed, "1.34")) != []


def test_every_check_has_a_wrong_manifest_to_find() -> None:
    assert {one.check for one in WRONG} == {*RULES, DEFINITION, SCHEMA}
