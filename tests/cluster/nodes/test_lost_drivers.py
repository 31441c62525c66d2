"""Drivers die at random points, and the jobs are run again until they are done."""

import fnmatch
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.cluster.nodes.conftest import Place, files_of

pytestmark = [pytest.mark.nodes, pytest.mark.cluster, pytest.mark.timeout(3000)]

KILLS = 20
SIGNS = (
    "_leases/*/*.json",
    "_runs/*/plan.parquet",
    "tables/*/*.parquet",
    "_runs/*/shards/*.json",
    "tables/*/_delta_log/*.json",
)
"""What a run leaves behind as it goes on; a kill comes right after one of these files appeared."""


@dataclass(frozen=True)
class Point:
    """A moment of a run: so many new files of a kind are there, and a little later."""

    sign: str
    count: int
    delay_s: float

    @staticmethod
    def choose(chance: random.Random, usual: dict[str, int]) -> "Point":
        sign = chance.choice(SIGNS)
        return Point(sign, chance.randint(1, max(usual[sign], 1)), chance.uniform(0, 0.05))


def matching(paths: frozenset[str], sign: str) -> set[str]:
    return {one for one in paths if fnmatch.fnmatch(one, sign)}


def killed_at(place: Place, point: Point) -> bool:
    """Run the jobs and kill the driver at a point; says whether it came to that."""
    before = matching(frozenset(files_of(place.lake)), point.sign)
    run = place.run()
    seen: set[str] = set()
    while run.poll() is None:
        seen |= matching(frozenset(files_of(place.lake)), point.sign) - before
        if len(seen) >= point.count:
            time.sleep(point.delay_s)
            run.send_signal(signal.SIGKILL)
            run.communicate(timeout=100)
            return run.returncode == -signal.SIGKILL
        time.sleep(0.005)
    place.ended(run)
    return False


def test_the_driver_dies_at_twenty_random_points(places: Callable[[str], Place]) -> None:
    place = places("raylets")
    for name in ("w1", "w2"):
        place.site.add(name)
    known = frozenset(files_of(place.base.lake))
    usual = {sign: len(matching(place.base.paths - known, sign)) for sign in SIGNS}
    assert min(usual.values()) >= 1, usual
    chance, kills, lakes = random.Random(20), 0, 0
    while kills < KILLS:
        if killed_at(place, Point.choose(chance, usual)):
            kills += 1
            continue
        place.assert_undisturbed()
        lakes += 1
        place.begin(f"lake-{lakes}")
    place.ended(place.run())
    place.assert_undisturbed()
