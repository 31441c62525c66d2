"""Training as the pool starts it: a Ray task leads, so that the driver loads no torch."""

from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.progress import Progress
from cluster.ray_failures import as_ours
from cluster.train_order import Board, TrainOrder
from cluster.works import train_bundle
from schemas.protocols import Run

POLL_S = 1.0
"""How often the driver looks for a finished epoch."""


def train_on_ray(
    lake: str, run: Run, config: Mapping[str, Any], workers: int, progress: Progress
) -> Mapping[str, bytes]:
    """Train on a running Ray; returns the bundle's files and `schemas.bundle.OUTCOME_FILE`.

    A run that was interrupted goes on at its last finished epoch.
    """
    rows = run.plan.inputs
    board: Any = ray.remote(Board).options(num_cpus=0).remote()
    order = TrainOrder(lake, run.id, rows, config, workers, board)
    progress.start(run.plan.name, rows.num_rows * int(config["training"]["epochs"]), "images")
    try:
        leading = ray.remote(num_cpus=0, max_retries=0)(train_bundle).remote(order)
        seen = 0
        while True:
            ready, _ = ray.wait([leading], timeout=POLL_S)
            fresh = ray.get(board.since.remote(seen))
            seen += len(fresh)
            progress.advance(rows.num_rows * len(fresh), 0)
            if ready:
                files: dict[str, bytes] = ray.get(leading)
                return files
    except RayError as error:
        raise as_ours(error, f"{run.id}, training") from error
    finally:
        progress.finish()
        ray.kill(board)
