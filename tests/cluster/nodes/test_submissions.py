"""The head dies and the job is submitted again; the same night is submitted twice at once."""

import json
from collections.abc import Callable

import pytest

from tests.cluster.nodes.conftest import Place
from tests.cluster.nodes.machines import Machines

pytestmark = [pytest.mark.nodes, pytest.mark.cluster, pytest.mark.timeout(1500)]

NIGHT = ("--night", "2026-11-21")


def test_the_head_dies_and_the_job_is_submitted_again(places: Callable[[str], Place]) -> None:
    place = places("submissions")
    assert isinstance(place.site, Machines)
    for name in ("w1", "w2"):
        place.site.add(name)
    out, _ = place.ended(place.start("submit", *NIGHT, "--no-wait"))
    assert out == "job-20261121-a1\n"
    place.await_receipts(4)
    place.site.kill("head")
    # Its old workers are not told: they go on until they find that nobody answers.
    kept = place.receipts()
    place.site.start_head()
    for name in ("w3", "w4"):
        place.site.add(name)
    again = place.start("submit", *NIGHT, "--json", "--no-preflight")
    out, err = again.communicate(timeout=500)
    if again.returncode == 1:  # the dead driver's lease had not lapsed, so it counted as alive
        assert "its driver lives" in err
        again = place.start("submit", *NIGHT, "--json", "--no-preflight")
        out, err = again.communicate(timeout=500)
    assert again.returncode == 0, out + err
    assert "Submitted job-20261121-a2" in err
    assert {json.loads(line)["status"] for line in out.splitlines()} <= {"published", "up_to_date"}
    place.assert_undisturbed()
    assert kept.items() <= place.receipts().items()


def test_one_night_submitted_twice_under_one_name_runs_once(
    places: Callable[[str], Place],
) -> None:
    place = places("submissions")
    for name in ("w1", "w2"):
        place.site.add(name)
    both = [place.start("submit", *NIGHT, "--no-preflight") for _ in range(2)]
    told = [place.ended(one)[1] for one in both]
    assert sorted("Attached to job-20261121-a1" in one for one in told) == [False, True]
    place.assert_undisturbed()


def test_one_night_under_two_names_is_done_by_one_of_them(places: Callable[[str], Place]) -> None:
    place = places("submissions")
    for name in ("w1", "w2"):
        place.site.add(name)
    names = ("early", "late")
    both = [place.start("submit", *NIGHT, "--no-preflight", f"--name={one}") for one in names]
    told = [one.communicate(timeout=500) for one in both]
    codes = [one.returncode for one in both]
    assert sorted(codes) == [0, 5], told
    loser = "".join(told[codes.index(5)])
    assert "holds this work" in loser or "took this work" in loser
    assert " on head" in loser
    place.assert_undisturbed()


def test_of_two_drivers_at_once_one_is_turned_away(places: Callable[[str], Place]) -> None:
    place = places("raylets")
    for name in ("w1", "w2"):
        place.site.add(name)
    both = [place.run() for _ in range(2)]
    told = [one.communicate(timeout=500) for one in both]
    codes = [one.returncode for one in both]
    assert sorted(codes) == [0, 5], told
    loser = told[codes.index(5)][1]
    assert "holds this work" in loser or "took this work" in loser
    place.assert_undisturbed()
