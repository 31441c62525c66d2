"""Ids of submissions."""

from datetime import date

import pytest

from cluster.submission.naming import first_attempt, job_name, newest_attempt, parse_id
from schemas.errors import UsageError


def test_an_id_names_job_day_and_attempt() -> None:
    first = first_attempt("night", date(2026, 11, 21))
    assert (str(first), first.base) == ("night-20261121-a1", "night-20261121")
    assert parse_id(str(first)) == first


@pytest.mark.parametrize("text", ["raysubmit_4La", "night", "night-20261121-a0", "night-2026-a1"])
def test_jobs_of_others_are_none_of_ours(text: str) -> None:
    assert parse_id(text) is None


def test_the_newest_attempt_is_that_of_the_highest_number() -> None:
    first = first_attempt("night", date(2026, 11, 21))
    known = [
        *("night-20261121-a9", "night-20261121-a10", "night-20261122-a30", "other-20261121-a40"),
        *("night-20261121-a11-check-123", "raysubmit_x"),
    ]
    assert str(newest_attempt(first, known)) == "night-20261121-a10"
    assert newest_attempt(first, known[2:]) is None


@pytest.mark.parametrize(
    ("text", "name"), [("demo", "demo"), ("my night.v2", "my-night-v2"), ("a_b-c", "a_b-c")]
)
def test_a_file_names_its_submission(text: str, name: str) -> None:
    assert job_name(text) == name


@pytest.mark.parametrize("text", ["", "...", "x" * 101])
def test_what_can_name_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="can't name a submission"):
        job_name(text)
