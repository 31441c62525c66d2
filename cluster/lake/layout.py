"""Where things lie below the root of a lake, and how runs and files are named.

::

    lake.json                         format version
    tables/TABLE/                     Delta tables
    _runs/R/plan.parquet              a run's plan, created once
    _runs/R/TABLE.parquet             what planning left for the finishing step
    _runs/R/shards/SHARD.json         receipts, each created once
    _runs/R/staged/                   what shards left for the finishing step, until the commit
    _runs/R/train/                    checkpoints of a training, until the commit
    _runs/R/told                      people were told that the gate holds the run
    _open/KEY/R                       runs of a key that are not committed yet
    _leases/KEY/EPOCH.json            who holds a key, created once
    _leases/KEY/EPOCH.beat            rewritten while the holder lives
    _leases/KEY/EPOCH.released        the holder gave the key up
    reports/training/MODEL/R/         event files of a training, kept
    reports/explain/, reports/STUDY/  heat maps, and pictures of evaluations
    models/NAME/VERSION/              the files of a bundle
    models/NAME/VERSION/bundle.json   makes the bundle whole: its run and its files, created once
"""

import re
import secrets
from datetime import UTC, datetime
from uuid import uuid4

from schemas.plan import fingerprint

LAKE_FILE = "lake.json"


def new_run_id(kind: str) -> str:
    """A run's name; it begins with the UTC time, so names sort by age."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{kind}-{secrets.token_hex(3)}"


def key_slug(key: tuple[str, ...]) -> str:
    """A key as one path segment: readable, and distinct for distinct keys."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", "--".join(key))[:80]
    return f"{readable}-{fingerprint(list(key))[:8]}"


def plan_path(run_id: str) -> str:
    """Where a run's plan lies."""
    return f"_runs/{run_id}/plan.parquet"


def planned_path(run_id: str, table: str) -> str:
    """Where a table lies that planning left for the finishing step."""
    return f"_runs/{run_id}/{table}.parquet"


def receipts_prefix(run_id: str) -> str:
    """The folder of a run's receipts."""
    return f"_runs/{run_id}/shards"


def receipt_path(run_id: str, shard: str) -> str:
    """Where a shard's receipt lies."""
    return f"{receipts_prefix(run_id)}/{shard}.json"


def data_path(table: str, run_id: str, shard: str, partition: dict[str, str]) -> str:
    """A new name for a data file below its table's folder; no name is given twice."""
    folders = "".join(f"{column}={value}/" for column, value in partition.items())
    return f"tables/{table}/{folders}{run_id}-{shard}-{uuid4().hex}.parquet"


def staged_prefix(run_id: str) -> str:
    """The folder of a run's staged files."""
    return f"_runs/{run_id}/staged"


def train_prefix(run_id: str) -> str:
    """The folder of a training's checkpoints."""
    return f"_runs/{run_id}/train"


def told_path(run_id: str) -> str:
    """Where it is noted that people were told of a held run."""
    return f"_runs/{run_id}/told"


def staged_path(table: str, run_id: str, shard: str) -> str:
    """A new name for a staged file."""
    return f"{staged_prefix(run_id)}/{table}-{shard}-{uuid4().hex}.parquet"


def open_prefix(key: tuple[str, ...]) -> str:
    """The folder that names the uncommitted runs of a key."""
    return f"_open/{key_slug(key)}"


def leases_prefix(key: tuple[str, ...]) -> str:
    """The folder of a key's leases."""
    return f"_leases/{key_slug(key)}"
