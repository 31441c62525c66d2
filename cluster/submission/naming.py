"""How submissions are called: ``<job>-<date>-a<N>``, so that a day's attempts stand together."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from schemas.errors import UsageError

_ID = re.compile(r"(?P<job>[A-Za-z0-9][A-Za-z0-9_-]*)-(?P<day>\d{8})-a(?P<attempt>[1-9]\d*)")
_LONGEST = 100
"""Ray takes any id; folders, metrics and pod names do not."""


@dataclass(frozen=True)
class SubmissionId:
    """One attempt at a job file on one day, the night's date in the file's time zone."""

    job: str
    day: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.base}-a{self.attempt}"

    @property
    def base(self) -> str:
        """What all attempts of the day share."""
        return f"{self.job}-{self.day}"


def job_name(text: str) -> str:
    """A job file's stem, or a name a user chose, as a part of ids.

    Raises:
        UsageError: if nothing of it can stand in one.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")
    if not name or len(name) > _LONGEST:
        raise UsageError(
            "This can't name a submission",
            got=text or "nothing",
            remedy=f"choose --name of letters, digits, - and _, {_LONGEST} at most",
        )
    return name


def first_attempt(job: str, today: date) -> SubmissionId:
    """The first attempt of a day."""
    return SubmissionId(job, f"{today:%Y%m%d}", 1)


def parse_id(text: str) -> SubmissionId | None:
    """Read an id back; none for jobs that others submitted."""
    found = _ID.fullmatch(text)
    return SubmissionId(found["job"], found["day"], int(found["attempt"])) if found else None


def newest_attempt(first: SubmissionId, known: Iterable[str]) -> SubmissionId | None:
    """The newest attempt of the same job and day among ``known`` ids, if there is one."""
    ids = (one for text in known if (one := parse_id(text)) and one.base == first.base)
    return max(ids, key=lambda one: one.attempt, default=None)
