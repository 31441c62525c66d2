"""The end of a training as the process learns of it that asked for it: its cost, its figures."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict

from cluster.lake.runs import FINISH, Cost, RunWriter
from cluster.storage import open_storage
from cluster.watching.meter import Meter, Spent
from cluster.watching.metrics import Ended, ShardFigures
from schemas.bundle import OUTCOME_FILE
from schemas.plan import ShardResult
from schemas.protocols import Run
from workers.stages import Stage

SPENT_FILE = "_spent.json"
"""Beside a training's files: what its processes spent. No part of the bundle."""

Files = dict[str, bytes]


def metered(train: Callable[[], Mapping[str, bytes]]) -> Files:
    """The files that ``train`` makes in this process, and `SPENT_FILE`."""
    meter = Meter()
    files = train()
    return with_spent(files, meter.read())


def with_spent(files: Mapping[str, bytes], spent: Spent) -> Files:
    """A training's files with `SPENT_FILE`."""
    return {**files, SPENT_FILE: json.dumps(asdict(spent)).encode()}


def training_ended(
    lake: str, run: Run, made: Mapping[str, bytes], wall_s: float
) -> tuple[Files, Ended]:
    """Put what a training cost with its run; returns its files, and what it did in numbers.

    ``made`` are the files and `SPENT_FILE`, ``wall_s`` the seconds that the training took. Its
    shard is recorded by the job, which knows no processors; so the cost has a receipt of its own,
    that of the finishing step, which trainings do not have. Of several the first counts.
    """
    files = dict(made)
    spent = Spent(**json.loads(files.pop(SPENT_FILE)))
    nothing = ShardResult({}, done=0, rejected=0)
    RunWriter(open_storage(lake), run.id).record(FINISH, nothing, Cost(spent.cpu_s, spent.gpu_s))
    reasons = Counter(str(one["reason"]) for one in json.loads(files[OUTCOME_FILE])["rejects"])
    figures = ShardFigures(
        reasons=reasons, seconds={Stage.COMPUTE.value: spent.wall_s}, wall_s=wall_s
    )
    return files, Ended(run.plan.kind, run.plan.inputs.num_rows - reasons.total(), figures)
