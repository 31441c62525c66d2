"""What a process spends on a piece of work, read where the work is done."""

import time
from dataclasses import dataclass

import ray


@dataclass(frozen=True)
class Spent:
    """Seconds of one process, or of several together."""

    cpu_s: float = 0.0
    """Computed on all threads."""
    gpu_s: float = 0.0
    """GPUs held, times the seconds they were held."""
    wall_s: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.cpu_s + other.cpu_s, self.gpu_s + other.gpu_s, self.wall_s + other.wall_s)


class Meter:
    """Reads what this process spends, from the meter's making on."""

    def __init__(self) -> None:
        self._gpus = own_gpus()
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def read(self) -> Spent:
        """What was spent so far."""
        wall_s = time.perf_counter() - self._wall_s
        return Spent(time.process_time() - self._cpu_s, self._gpus * wall_s, wall_s)


def own_gpus() -> float:
    """GPUs, or the share of one, that Ray gave this process; none where Ray did not start it."""
    if not ray.is_initialized():
        return 0.0
    context = ray.get_runtime_context()
    if context.get_task_id() is None and context.get_actor_id() is None:  # the driver
        return 0.0
    return float(context.get_assigned_resources().get("GPU", 0.0))
