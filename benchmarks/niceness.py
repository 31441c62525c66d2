"""The priority peers run at."""

import os

_RAY_WORKERS = 15
"""Ray's default for its workers (`worker_niceness`)."""


def as_ray_worker() -> None:
    """Give this process the priority of a Ray worker.

    Otherwise whatever else the machine does would slow Rayward down more than its peers.
    """
    os.nice(_RAY_WORKERS)
