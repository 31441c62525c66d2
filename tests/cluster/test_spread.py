"""Parts of a computation on a Ray of its own, with CPUs to spare and with none."""

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import ray

from cluster.spread import OnRay
from schemas.errors import ShardFailed, SplitError
from workers.pixels import search
from workers.pixels.neighbours import TooManyPairs, keep_in_order, pairs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]


def tell(shared: int, part: int) -> tuple[int, int]:
    """What a part was given, and the process that computed it."""
    time.sleep(0.05)
    return shared + part, os.getpid()


def fail(shared: str, part: int) -> int:
    time.sleep(0.2)
    if part == 1:
        raise ZeroDivisionError("patient 12345")
    if part == 2:
        raise SplitError("no such part")
    return part


def sum_of(counts: Sequence[int]) -> int:
    """Sum numbers in parts, from within a task or an actor."""
    return sum(number for number, _ in OnRay("sum")(tell, 0, counts))


class Holder:
    """Holds the CPU it runs on."""

    def sum_of(self, counts: Sequence[int]) -> int:
        return sum_of(counts)


@contextmanager
def started(cpus: int) -> Iterator[None]:
    # A short path: Ray puts sockets below it.
    with tempfile.TemporaryDirectory(prefix="rayward-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=cpus,
            object_store_memory=2**28,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


# Both begin before a test's own home: Ray keeps the token of its first home for the process.
@pytest.fixture(scope="class")
def one_cpu() -> Iterator[None]:
    with started(1):
        yield


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    with started(2):
        yield


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of milliseconds is cut into parts, as one of seconds is."""
    monkeypatch.setattr(search, "_PART_NS", 2e6)
    monkeypatch.setattr(search, "_INDEX_NS", 0.0)


def test_without_ray_all_is_computed_here() -> None:
    assert not ray.is_initialized()
    assert sum_of(range(5)) == 10


def test_a_single_cpu_is_enough_for_a_task_and_for_an_actor(one_cpu: None) -> None:
    task = ray.remote(num_cpus=1)(sum_of)
    assert ray.get(task.remote(range(8)), timeout=60) == 28
    actor = ray.remote(num_cpus=1)(Holder).remote()
    assert ray.get(actor.sum_of.remote(range(8)), timeout=60) == 28


def test_results_come_in_order_from_this_process_and_another(two_cpus: None) -> None:
    ray.get(ray.remote(num_cpus=1)(sum_of).remote([]))  # a process stands ready
    found = list(OnRay("here")(tell, 100, range(60)))
    assert [number for number, _ in found] == list(range(100, 160))
    processes = {process for _, process in found}
    assert os.getpid() in processes
    assert len(processes) > 1


def test_parts_not_begun_are_dropped_with_the_rest(two_cpus: None) -> None:
    results = OnRay("here")(tell, 0, range(10_000))
    assert next(results)[0] == 0
    results.close()
    started_s = time.monotonic()
    assert sum_of(range(4)) == 6
    assert time.monotonic() - started_s < 60, "nothing of the ten thousand stands in the way"


def test_nothing_and_a_single_part_need_no_other_process(two_cpus: None) -> None:
    assert list(OnRay("here")(tell, 0, [])) == []
    assert list(OnRay("here")(tell, 1, [2])) == [(3, os.getpid())]


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [(1, ShardFailed, "ZeroDivisionError"), (2, SplitError, "no such part")],
)
def test_errors_of_other_processes_are_ours(
    two_cpus: None, part: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        list(OnRay("somewhere")(fail, "", [part, 0, 0, 0]))
    assert "12345" not in str(caught.value)


def test_errors_of_this_process_are_told_as_those_of_others(two_cpus: None) -> None:
    with pytest.raises(ShardFailed, match="ZeroDivisionError at test_spread.py") as caught:
        list(OnRay("somewhere")(fail, "", [1]))  # a single part needs no other process
    assert "12345" not in str(caught.value)


def test_two_cpus_that_are_both_held_are_enough(two_cpus: None) -> None:
    actors = [ray.remote(num_cpus=1)(Holder).remote() for _ in range(2)]
    sums = [actor.sum_of.remote(range(12)) for actor in actors]
    assert ray.get(sums, timeout=120) == [66, 66]
    for actor in actors:
        ray.kill(actor)


def test_neighbours_are_the_same_as_here(two_cpus: None, small_parts: None) -> None:
    random = np.random.default_rng(4)
    bits = random.random((40_000, 64)) < np.linspace(0.05, 0.95, 64)
    hashes = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
    spread = OnRay("hashes")
    whole, apart = pairs(hashes, 6), pairs(hashes, 6, spread=spread)
    assert len(whole) > 100
    for name in ("i", "j", "distance"):
        assert np.array_equal(getattr(apart, name), getattr(whole, name))
    with pytest.raises(TooManyPairs):
        pairs(hashes, 6, limit=len(whole) - 1, spread=spread)
    old, new = hashes[:20_000], hashes[20_000:]
    one, two = keep_in_order(new, 8, old), keep_in_order(new, 8, old, spread=spread)
    assert np.count_nonzero(one.duplicate_of >= 0) > 100
    assert np.array_equal(one.duplicate_of, two.duplicate_of)
    assert np.array_equal(one.distance, two.distance)
