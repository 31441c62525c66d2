"""What Ray's errors say: whose fault a death was, and which error of ours to show."""

from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from cluster.foreign import told
from schemas.errors import RaywardError, ShardFailed

_MEMORY_MONITOR = "running low on memory"
"""Said of processes Ray's memory monitor ended. The text about any dead process names the kernel's
OOM killer as a possible cause, so no shorter phrase will do."""
_NODE_DIED = "its node has died"


def is_memory_kill(error: Exception) -> bool:
    """Whether Ray ended the process because its node ran out of memory."""
    return _MEMORY_MONITOR in str(error)


def is_lost_node(error: RayActorError) -> bool:
    """Whether the process went with its node, or can't be reached: no image did that."""
    return error.preempted or isinstance(error, ActorUnavailableError) or _NODE_DIED in str(error)


def failed_to_start(error: RayActorError) -> bool:
    """Whether the process raised before it was given anything to do."""
    return bool(getattr(error, "actor_init_failed", False))


def as_ours(error: Exception, where: str, what: str = "A shard failed") -> RaywardError:
    """The error to show for one that came out of a Ray process.

    Errors of ours come through as they are. Of others only the class and the place are told:
    their messages may quote paths or file contents.
    """
    cause = getattr(error, "cause", None)
    if isinstance(error, RayTaskError) and isinstance(cause, RaywardError):
        return cause
    return ShardFailed(
        what,
        where=where,
        got=told(cause if isinstance(cause, BaseException) else error, trace=str(error)),
        remedy="run the job again once the cause is removed; finished shards stay done",
    )
