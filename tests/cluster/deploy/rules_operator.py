"""What KubeRay 1.7 checks when it meets an object, beyond what a definition can hold.

Each rule yields what is wrong. Read in the operator's validation of RayCluster and RayJob.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from packaging.version import InvalidVersion, Version

from tests.cluster.deploy.manifests import Manifest, clusters, groups, of_kind

Rule = Callable[[list[Manifest]], Iterator[str]]

LONGEST = {"RayCluster": 53, "RayJob": 47, "CronJob": 52}
"""A RayJob's cluster adds six characters, a cluster's services ten; 63 is the limit of a name."""
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_FIRST_WITH_TOKENS = Version("2.52.0")
_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")


def names(objects: list[Manifest]) -> Iterator[str]:
    for one in objects:
        name = one["metadata"].get("name", "")
        longest = LONGEST.get(one["kind"], 63)
        if len(name) > longest:
            yield f"{one['kind']} {name}: longer than {longest} characters"
        if not _DNS_1035.fullmatch(name):
            yield f"{one['kind']} {name!r}: is not a name"
    for where, spec in clusters(objects):
        given = [name for name, _ in groups(spec)]
        if len(set(given)) < len(given):
            yield f"{where}: groups share a name"
        yield from (
            f"{where}: {one} is no group's name" for one in given if not _DNS_1035.fullmatch(one)
        )


def authentication(objects: list[Manifest]) -> Iterator[str]:
    for where, spec in clusters(objects):
        if spec.get("authOptions", {}).get("mode") != "token":
            yield f"{where}: authOptions.mode is not token"
        stated = str(spec.get("rayVersion", ""))
        try:
            if Version(stated) < _FIRST_WITH_TOKENS:
                yield f"{where}: Ray {stated} knows no tokens"
        except InvalidVersion:
            yield f"{where}: tokens need rayVersion stated, got {stated!r}"


def deletion(objects: list[Manifest]) -> Iterator[str]:
    for job in of_kind(objects, "RayJob"):
        spec = job["spec"]
        strategy = spec.get("deletionStrategy")
        if not spec.get("shutdownAfterJobFinishes") and spec.get("ttlSecondsAfterFinished", 0) > 0:
            yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
        if strategy is None:
            continue
        rules = strategy.get("deletionRules", [])
        legacy = [key for key in ("onSuccess", "onFailure") if key in strategy]
        if rules and spec.get("shutdownAfterJobFinishes"):
            yield "deletionRules and shutdownAfterJobFinishes exclude each other"
        if rules and legacy:
            yield "deletionRules and onSuccess or onFailure exclude each other"
        if not rules and len(legacy) < 2:
            yield "deletionStrategy is empty"
        yield from _deletion_rules(rules, spec)


def _deletion_rules(rules: list[Manifest], spec: Manifest) -> Iterator[str]:
    seconds: dict[str, dict[str, int]] = {}
    for rule in rules:
        condition, policy = rule["condition"], rule["policy"]
        named = [key for key in ("jobStatus", "jobDeploymentStatus") if key in condition]
        if len(named) != 1:
            yield f"{policy}: names {len(named)} states instead of one"
            continue
        if policy == "DeleteWorkers" and spec["rayClusterSpec"].get("enableInTreeAutoscaling"):
            yield "DeleteWorkers does not go with the autoscaler"
        if policy in ("DeleteWorkers", "DeleteCluster") and spec.get("clusterSelector"):
            yield f"{policy} does not go with clusterSelector"
        of_state = seconds.setdefault(f"{named[0]} {condition[named[0]]}", {})
        if policy in of_state:
            yield f"{policy} stands twice for {condition[named[0]]}"
        of_state[policy] = condition.get("ttlSeconds", 0)
    for state, of_state in seconds.items():
        ordered = [of_state[policy] for policy in _ORDER if policy in of_state]
        if ordered != sorted(ordered):
            yield f"{state}: what holds others is deleted before them"


def suspension(objects: list[Manifest]) -> Iterator[str]:
    for job in of_kind(objects, "RayJob"):
        if job["spec"].get("suspend") and not job["spec"].get("shutdownAfterJobFinishes"):
            yield "a RayJob without shutdownAfterJobFinishes can't be suspended"
        if job["spec"].get("suspend") and job["spec"].get("clusterSelector"):
            yield "a RayJob with clusterSelector can't be suspended"
    for where, spec in clusters(objects):
        for name, group in groups(spec):
            if group.get("suspend") and spec.get("enableInTreeAutoscaling"):
                yield f"{where}, {name}: a group can't be suspended beside the autoscaler"


def autoscaler(objects: list[Manifest]) -> Iterator[str]:
    for where, spec in clusters(objects):
        scales = spec.get("enableInTreeAutoscaling", False)
        version = spec.get("autoscalerOptions", {}).get("version")
        head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
        env = {one["name"]: one.get("value") for one in head.get("env", [])}
        by_env = "RAY_enable_autoscaler_v2" in env
        if not scales or not (version == "v2" or by_env):
            yield f"{where}: is not scaled by autoscaler v2"
        if by_env and not scales:
            yield f"{where}: RAY_enable_autoscaler_v2 without the autoscaler"
        if by_env and version:
            yield f"{where}: RAY_enable_autoscaler_v2 beside autoscalerOptions.version"
        for name, group in groups(spec):
            policy = group["template"]["spec"].get("restartPolicy", "Never")
            if version == "v2" and policy != "Never":
                yield f"{where}, {name}: restartPolicy is {policy}, not Never"
            if name == "head":
                continue
            least, now = group.get("minReplicas", 0), group.get("replicas", 0)
            if not 0 <= least <= now <= group.get("maxReplicas", 2**31 - 1):
                yield f"{where}, {name}: replicas are not between minReplicas and maxReplicas"


def start_parameters(objects: list[Manifest]) -> Iterator[str]:
    for where, spec in clusters(objects):
        for name, group in groups(spec):
            given: dict[str, Any] = group.get("rayStartParams", {})
            counted = {"num-cpus", "num-gpus", "memory", "resources"} & set(given)
            if counted and group.get("resources"):
                yield f"{where}, {name}: resources stand in two places"
            if "labels" in given:
                yield f"{where}, {name}: labels are a field of the group"
            for key, value in given.items():
                if "'" in value or re.search(r"[\s;&|$`]", value):
                    yield f"{where}, {name}: {key} is pasted into a shell"


def submission(objects: list[Manifest]) -> Iterator[str]:
    for job in of_kind(objects, "RayJob"):
        spec = job["spec"]
        mode = spec.get("submissionMode", "K8sJobMode")
        if mode not in _MODES:
            yield f"no submissionMode is called {mode}"
        if ("rayClusterSpec" in spec) == bool(spec.get("clusterSelector")):
            yield "needs one of rayClusterSpec and clusterSelector"
        if mode == "SidecarMode" and {"submitterPodTemplate", "submitterConfig"} & set(spec):
            yield "SidecarMode has no submitter of its own"
        if mode == "InteractiveMode" and spec.get("backoffLimit", 0) > 0:
            yield "InteractiveMode is not tried again"
        if spec.get("activeDeadlineSeconds", 1) <= 0 or spec.get("backoffLimit", 0) < 0:
            yield "activeDeadlineSeconds must be above 0, and backoffLimit not below"
        # The submitter's script holds it as it is.
        if not re.fullmatch(r"[\w./:=@%+,-]+( [\w./:=@%+,-]+)*", spec.get("entrypoint", "")):
            yield "the entrypoint is pasted into a shell script: plain words only"


def fault_tolerance(objects: list[Manifest]) -> Iterator[str]:
    for where, spec in clusters(objects):
        head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
        named = {one["name"] for one in head.get("env", [])}
        if "RAY_REDIS_ADDRESS" in named:
            yield f"{where}: RAY_REDIS_ADDRESS turns fault tolerance on behind the operator's back"


RULES: dict[str, Rule] = {
    "names": names,
    "authentication": authentication,
    "deletion": deletion,
    "suspension": suspension,
    "autoscaler": autoscaler,
    "start parameters": start_parameters,
    "submission": submission,
    "fault tolerance": fault_tolerance,
}
