"""What our manifests promise: fenced ports, locked pods, one night at a time, no secrets."""

import copy
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any
from zoneinfo import available_timezones

from tests.cluster.deploy.manifests import (
    Manifest,
    clusters,
    containers,
    find,
    groups,
    of_kind,
    pods,
)
from tests.cluster.deploy.rules_operator import Rule

DAY_S = 24 * 3600
RAY = {"app.kubernetes.io/name": "rayward-ray"}
METRICS = {8080, 44217, 44227}
_UNIT = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_SECRET = re.compile(r"(?i)secret|notify_urls|token|password|access_key|credential(?!s_file)")


def in_bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]i)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * _UNIT[unit]


def head_takes_no_shards(objects: list[Manifest]) -> Iterator[str]:
    for where, spec in clusters(objects):
        if spec["headGroupSpec"].get("rayStartParams", {}).get("num-cpus") != "0":
            yield f"{where}: the head has CPUs for shards"


def memory(objects: list[Manifest]) -> Iterator[str]:
    """Ray counts with the limit; a request below it lets the node run out beneath."""
    for where, spec in clusters(objects):
        for name, group in groups(spec):
            resources = group["template"]["spec"]["containers"][0].get("resources", {})
            limit = resources.get("limits", {}).get("memory")
            if limit is None or resources.get("requests", {}).get("memory") != limit:
                yield f"{where}, {name}: memory is not set, or asked for below its limit"
                continue
            store = int(group.get("rayStartParams", {}).get("object-store-memory", 0))
            if not 0 < store <= in_bytes(limit) // 4:
                yield f"{where}, {name}: object-store-memory is not set, or over a quarter"
    for where, pod in pods(objects):
        for one in containers(pod):
            if "memory" not in one.get("resources", {}).get("limits", {}):
                yield f"{where}, {one['name']}: no limit of memory"


def images(objects: list[Manifest]) -> Iterator[str]:
    """One version of Ray on all nodes: one image of one registry, but for what GPUs need."""
    release, registries = metadata.version("rayward"), set()
    for where, pod in pods(objects):
        gpu = any("nvidia.com/gpu" in one["resources"]["limits"] for one in containers(pod))
        for one in containers(pod):
            registry, _, name = one["image"].rpartition("/")
            registries.add(registry)
            if name not in {f"rayward:{release}", f"rayward:{release}-gpu" if gpu else ""}:
                yield f"{where}, {one['name']}: image {one['image']} is not of {release}"
    if len(registries) > 1:
        yield "images of two registries"
    for where, spec in clusters(objects):
        if spec.get("rayVersion") != metadata.version("ray"):
            yield f"{where}: rayVersion is not the image's"


def locked_pods(objects: list[Manifest]) -> Iterator[str]:
    """Kubernetes' own "restricted" profile, held by each pod of ours."""
    for where, pod in pods(objects):
        spec = pod["spec"]
        of_pod = spec.get("securityContext", {})
        if not of_pod.get("runAsNonRoot") or of_pod.get("runAsUser", 0) == 0:
            yield f"{where}: may run as root"
        if of_pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{where}: no seccomp profile"
        if {"hostNetwork", "hostPID", "hostIPC"} & {key for key in spec if spec[key]}:
            yield f"{where}: shares the host's namespaces"
        kinds = {key for one in spec.get("volumes", []) for key in one if key != "name"}
        if kinds - {"configMap", "emptyDir", "secret", "projected", "persistentVolumeClaim"}:
            yield f"{where}: mounts {sorted(kinds)}"
        for one in containers(pod):
            given = one.get("securityContext", {})
            if given.get("allowPrivilegeEscalation") is not False or given.get("privileged"):
                yield f"{where}, {one['name']}: may gain rights"
            if given.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{where}, {one['name']}: keeps capabilities"
    for where, spec in clusters(objects):
        given = spec.get("autoscalerOptions", {}).get("securityContext", {})
        if given.get("allowPrivilegeEscalation") is not False:
            yield f"{where}, autoscaler: may gain rights"


def accounts(objects: list[Manifest]) -> Iterator[str]:
    """Each pod has an account of its own kind, and only who calls Kubernetes holds a token."""
    known = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    for where, pod in pods(objects):
        name = pod["spec"].get("serviceAccountName")
        if name not in known:
            yield f"{where}: account {name} is not ours"
        calls = name in ("rayward-head", "rayward-launcher")
        if not calls and pod["spec"].get("automountServiceAccountToken") is not False:
            yield f"{where}: holds a token it has no use for"


def launcher_rights(objects: list[Manifest]) -> Iterator[str]:
    role = find(objects, "Role", "rayward-launcher")
    if role["rules"] != [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]:
        yield "the launcher may do more than create RayJobs"
    binding = find(objects, "RoleBinding", "rayward-launcher")
    if [one["name"] for one in binding["subjects"]] != ["rayward-launcher"]:
        yield "somebody else is bound to the launcher's role"
    if (binding["roleRef"]["kind"], binding["roleRef"]["name"]) != ("Role", "rayward-launcher"):
        yield "the launcher is bound to another role"
    if any(one["kind"].startswith("ClusterRole") for one in objects):
        yield "rights beyond the namespace"


def nothing_in_the_clear(objects: list[Manifest]) -> Iterator[str]:
    yield from ("a Secret stands in a file" for _ in of_kind(objects, "Secret"))
    for where, pod in pods(objects):
        for one in containers(pod):
            for env in one.get("env", []):
                if _SECRET.search(env["name"]) and "value" in env:
                    yield f"{where}: {env['name']} in the clear"
    for one in of_kind(objects, "ConfigMap"):
        yield from (f"{key} in the clear" for key in one["data"] if _SECRET.search(key))


def environment(objects: list[Manifest]) -> Iterator[str]:
    """Tokens are required by name in each Ray container, and the key is its reader's alone."""
    for where, spec in clusters(objects):
        for name, group in groups(spec):
            pod = group["template"]["spec"]
            main = pod["containers"][0]
            env = {one["name"]: one.get("value") for one in main.get("env", [])}
            if env.get("RAY_AUTH_MODE") != "token" or env.get("RAY_USAGE_STATS_ENABLED") != "0":
                yield f"{where}, {name}: RAY_AUTH_MODE is not token, or usage is reported"
            own = next((i for i in pod.get("initContainers", []) if i["name"] == "own-key"), None)
            if own is None or own["command"][:3] != ["install", "-m", "0400"]:
                yield f"{where}, {name}: the key is not copied to a file of its reader's own"
            elif own["command"][-1] != env.get("RAYWARD_KEY_FILE"):
                yield f"{where}, {name}: RAYWARD_KEY_FILE is not where the key is copied to"
            volumes = {one["name"]: one for one in pod.get("volumes", [])}
            if volumes.get("key", {}).get("emptyDir", {}).get("medium") != "Memory":
                yield f"{where}, {name}: the key's copy lies on a disk"
            if {"configMapRef": {"name": "rayward"}} not in main.get("envFrom", []):
                yield f"{where}, {name}: does not read the settings"


def spot(objects: list[Manifest]) -> Iterator[str]:
    for where, spec in clusters(objects):
        for name, group in groups(spec):
            pod = group["template"]["spec"]
            gpu = "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]
            tolerated = {one["key"] for one in pod.get("tolerations", [])}
            if gpu and "nvidia.com/gpu" not in tolerated:
                yield f"{where}, {name}: does not tolerate the taint of GPU nodes"
            if not name.endswith("-spot"):
                continue
            affinity = pod.get("affinity", {}).get("nodeAffinity", {})
            if not affinity.get("requiredDuringSchedulingIgnoredDuringExecution"):
                yield f"{where}, {name}: may land on nodes that are no spot nodes"
            if "cloud.google.com/gke-spot" not in tolerated:
                yield f"{where}, {name}: does not tolerate the taint of spot nodes"
            if group["minReplicas"] != 0 and where.startswith("RayCluster"):
                yield f"{where}, {name}: costs while nothing runs"
        if not any(name.endswith("-spot") for name, _ in groups(spec)):
            yield f"{where}: no spot group"


def night(objects: list[Manifest]) -> Iterator[str]:
    """Nights don't overlap, a missed one is caught up once, and none lasts for ever."""
    cron, job = find(objects, "CronJob")["spec"], find(objects, "RayJob")
    if cron.get("concurrencyPolicy") != "Forbid":
        yield "two launchers may run at once"
    if not 3600 <= cron.get("startingDeadlineSeconds", 0) < DAY_S:
        yield "a missed night is lost, or replayed the next day"
    if cron.get("timeZone") not in available_timezones():
        yield f"no time zone is called {cron.get('timeZone')}"
    if not re.fullmatch(r"\d+ \d+ \* \* \*", cron.get("schedule", "")):
        yield f"{cron.get('schedule')} is not once a night"
    if "CRON_TZ" in cron.get("schedule", "") or "generateName" in job["metadata"]:
        yield "the RayJob's fixed name is what keeps nights apart"
    if {"activeDeadlineSeconds", "backoffLimit"} - set(cron["jobTemplate"]["spec"]):
        yield "the launcher is tried for ever, or not again"
    deadline, tries = job["spec"].get("activeDeadlineSeconds"), job["spec"].get("backoffLimit", 0)
    if deadline is None or not 1 <= tries <= 5:
        yield "a night has no end, or no second try"
    rules = job["spec"].get("deletionStrategy", {}).get("deletionRules", [])
    ends = {
        next(one["condition"][key] for key in one["condition"] if key != "ttlSeconds"): one
        for one in rules
        if one["policy"] == "DeleteSelf"
    }
    yield from (
        f"a night that ended as {one} is in the next one's way"
        for one in ("SUCCEEDED", "FAILED", "Failed")
        if one not in ends
    )
    longest = max((one["condition"].get("ttlSeconds", 0) for one in ends.values()), default=0)
    if (deadline or 0) + longest >= DAY_S:
        yield "last night's object still stands when the next night begins"


def network(objects: list[Manifest]) -> Iterator[str]:
    """Nobody reaches a pod but by a rule that names who; metrics ports are Prometheus' alone."""
    policies = [one["spec"] for one in of_kind(objects, "NetworkPolicy")]
    for where, pod in pods(objects):
        labels = pod["metadata"]["labels"].items()
        mine = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels]
        for direction in ("Ingress", "Egress"):
            if not any(direction in one["policyTypes"] for one in mine):
                yield f"{where}: {direction.lower()} is not fenced"
    rules = [
        rule
        for one in policies
        if "Ingress" in one["policyTypes"]
        for rule in one.get("ingress", [])
    ]
    if {"from": [{"podSelector": {"matchLabels": RAY}}]} not in rules:
        yield "nodes don't reach each other"
    for rule in rules:
        yield from _ingress(rule)


def _ingress(rule: Manifest) -> Iterator[str]:
    ports = {one.get("port") for one in rule.get("ports", [])}
    sources: list[Manifest] = rule.get("from", [])
    if not sources:
        yield "a rule that lets everybody in"
    for source in sources:
        pod: Any = source.get("podSelector", {}).get("matchLabels")
        if not pod or "ipBlock" in source:
            yield "a source that is not told by its pods' labels"
        elif "namespaceSelector" not in source:
            if pod != RAY:
                yield f"{pod} of our own namespace is let in"
        elif not source["namespaceSelector"].get("matchLabels"):
            yield "a source of any namespace"
        elif pod.get("app.kubernetes.io/name") == "prometheus":
            if not ports or ports - METRICS:
                yield "Prometheus reaches more than the metrics ports"
        elif ports != {8265}:
            yield f"{pod} reaches more than the dashboard's port"


def monitoring(objects: list[Manifest]) -> Iterator[str]:
    monitor = find(objects, "PodMonitor")["spec"]
    if monitor.get("selector", {}).get("matchLabels") != RAY:
        yield "the monitor selects other pods than the policy opens"
    wanted = {one.get("port") for one in monitor["podMetricsEndpoints"]}
    for where, spec in clusters(objects):
        for name, group in groups(spec):
            ports = group["template"]["spec"]["containers"][0].get("ports", [])
            named = {one["name"]: one["containerPort"] for one in ports}
            if "metrics" not in named or (name == "head" and wanted - set(named)):
                yield f"{where}, {name}: lacks a port that is scraped"
            if {named[one] for one in wanted & set(named)} - METRICS:
                yield f"{where}, {name}: a scraped port is not open to Prometheus"


def exposure(objects: list[Manifest]) -> Iterator[str]:
    for where, spec in clusters(objects):
        head = spec["headGroupSpec"]
        if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
            yield f"{where}: the head is reachable from outside"
    yield from (f"{one['kind']} opens a way in" for one in of_kind(objects, "Ingress"))
    yield from (f"{one['kind']} opens a way in" for one in of_kind(objects, "Service"))


def namespace(objects: list[Manifest]) -> Iterator[str]:
    labels = find(objects, "Namespace")["metadata"].get("labels", {})
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace takes pods that are not locked"
    for one in objects:
        if one["kind"] != "Namespace" and one["metadata"].get("namespace") != "rayward":
            yield f"{one['kind']}: stands in another namespace"


def slots(objects: list[Manifest]) -> Iterator[str]:
    """A run is as wide as the CPUs that are there when it starts, and none is no run."""
    for where, spec in clusters(objects):
        lasting = [one for name, one in groups(spec) if name != "head" and "-spot" not in name]
        if sum(one["minReplicas"] for one in lasting) < 1:
            yield f"{where}: a job starts before there is a node for it"


def alike(objects: list[Manifest]) -> Iterator[str]:
    """The clusters of the day and the night differ in how many nodes they keep, and no more."""
    specs = [copy.deepcopy(spec) for _, spec in clusters(objects)]
    for spec in specs:
        for _, group in groups(spec):
            for key in ("replicas", "minReplicas"):
                group.pop(key, None)
    if any(one != specs[0] for one in specs):
        yield "the cluster of the day and the night's differ"


RULES: dict[str, Rule] = {
    "head takes no shards": head_takes_no_shards,
    "memory": memory,
    "images": images,
    "locked pods": locked_pods,
    "accounts": accounts,
    "launcher rights": launcher_rights,
    "nothing in the clear": nothing_in_the_clear,
    "environment": environment,
    "spot": spot,
    "slots": slots,
    "night": night,
    "network": network,
    "monitoring": monitoring,
    "exposure": exposure,
    "namespace": namespace,
    "alike": alike,
}
