"""How processes of Ray end that were at work: whose fault it was, and when to give up.

Shared by whoever hands work to processes and survives their deaths.
"""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RaySystemError,
    RpcError,
    RuntimeEnvSetupError,
)

from cluster.ray_failures import failed_to_start, is_lost_node, is_memory_kill

_NODE_ERRORS = (LocalRayletDiedError, NodeDiedError, ObjectLostError, RaySystemError, RpcError)


class Fate(StrEnum):
    """What ended a process."""

    START = "failed starts"
    """It never began: the place is unfit, not the work."""
    NODE = "lost nodes"
    """Its node went, or can't be reached; says nothing about the work."""
    MEMORY = "deaths for want of memory"
    PROCESS = "deaths"


def fate_of(error: RayError) -> Fate:
    """What an error of Ray, other than one that the work itself raised, says of a process."""
    if isinstance(error, RuntimeEnvSetupError):
        return Fate.START
    if isinstance(error, OutOfMemoryError) or is_memory_kill(error):
        return Fate.MEMORY
    if isinstance(error, RayActorError):
        if failed_to_start(error):
            return Fate.START
        return Fate.NODE if is_lost_node(error) else Fate.PROCESS
    return Fate.NODE if isinstance(error, _NODE_ERRORS) else Fate.PROCESS


TRIES: Mapping[Fate, int] = MappingProxyType(
    # A spot node now and then is no reason to give up.
    {Fate.START: 3, Fate.NODE: 10, Fate.MEMORY: 2, Fate.PROCESS: 2}
)
"""How often a piece of work is tried that ends this way every time."""


class Deaths:
    """Counts the ends of processes by the work they were at."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Fate]] = Counter()

    def note(self, work: str, fate: Fate) -> bool:
        """Count an end; returns whether the work may be tried again.

        Deaths for want of memory and others count together: either may be the work's fault.
        """
        self._counts[work, fate] += 1
        deadly = (Fate.MEMORY, Fate.PROCESS)
        alike = deadly if fate in deadly else (fate,)
        return sum(self._counts[work, one] for one in alike) < TRIES[fate]

    def forget(self, work: str) -> None:
        """Begin to count anew for a piece of work."""
        for fate in Fate:
            del self._counts[work, fate]

    def told(self, work: str) -> str:
        """What ended the processes that were at a piece of work: ``1 lost nodes, 2 deaths``."""
        counts = {fate: self._counts[work, fate] for fate in Fate}
        return ", ".join(f"{count} {fate.value}" for fate, count in counts.items() if count)
