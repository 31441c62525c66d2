"""Words of processes about their shards, left in Ray's key-value store for the driver.

A store that can't be reached loses a word and nothing else: it is the head's, and whoever works
notices its death by other means.
"""

import json
from contextlib import suppress
from dataclasses import asdict

from ray.exceptions import RayError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_put,
)

from cluster.watching.stalls import Word
from workers.stages import Stage, Whereabouts

_NAMESPACE = b"rayward"


def say(run_id: str, shard: str, word: Word) -> None:
    """Leave a word about a shard, in place of the last one."""
    told = {"number": word.number, **asdict(word.where)}
    with suppress(RayError):
        _internal_kv_put(_key(run_id, shard), json.dumps(told).encode(), namespace=_NAMESPACE)


def hear(run_id: str, shard: str) -> Word | None:
    """The last word about a shard."""
    found = None
    with suppress(RayError):
        found = _internal_kv_get(_key(run_id, shard), namespace=_NAMESPACE)
    if found is None:
        return None
    told = json.loads(found)
    stage = told["stage"]
    return Word(told["number"], Whereabouts(stage and Stage(stage), told["still_s"]))


def forget(run_id: str) -> None:
    """Remove the words about the shards of a run."""
    with suppress(RayError):
        _internal_kv_del(_key(run_id, ""), del_by_prefix=True, namespace=_NAMESPACE)


def _key(run_id: str, shard: str) -> bytes:
    return f"{run_id}/{shard}".encode()
