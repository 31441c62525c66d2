"""How many processes fit a cluster as it stands, and how many it might come to fit."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import ray
from ray._private.state import state

from schemas.errors import UsageError

VARIABLE = "RAYWARD_SLOTS"
"""Processes that the cluster may grow to, where Ray does not say."""


def fitting(gpus: float) -> int:
    """Processes of one CPU, and of so many GPUs, that fit the nodes that are there."""
    there = (one["Resources"] for one in ray.nodes() if one["Alive"])
    return sum(_on_node(resources, gpus) for resources in there)


def _on_node(resources: Mapping[str, float], gpus: float) -> int:
    cpus = int(resources.get("CPU", 0))
    # A third of a GPU fits three times, whatever floating point says.
    return min(cpus, int(resources.get("GPU", 0.0) / gpus + 1e-6)) if gpus else cpus


@dataclass(frozen=True)
class Growth:
    """How far a cluster may grow."""

    most: int
    """Processes that would fit then; 0 where nobody says that it grows."""
    is_stated: bool = False
    """Whether the environment says so: then a run asks for as many."""


def growth(gpus: float) -> Growth:
    """How far the cluster may grow, for processes of so many GPUs.

    That is what the environment says, or what Ray's autoscaler tells of its largest size.

    Raises:
        UsageError: if the environment says no number.
    """
    stated = os.environ.get(VARIABLE, "")
    if stated:
        if not stated.isdecimal():
            raise UsageError(
                "That is no number of processes",
                where=VARIABLE,
                got=stated,
                remedy="set it to what the cluster may grow to, such as 64",
            )
        return Growth(int(stated), is_stated=True)
    largest: Mapping[str, float] | None = state.get_max_resources_from_cluster_config()
    return Growth(_on_node(largest, gpus) if largest else 0)
