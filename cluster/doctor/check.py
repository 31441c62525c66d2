"""What one check of the doctor found."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """Runs work, but slower, with less, or not everywhere."""
    FAIL = "fail"
    """Runs will fail."""


@dataclass(frozen=True)
class Check:
    """One finding, and what to do about it where it is not good."""

    name: str
    state: State
    detail: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """The finding as JSON values."""
        return {
            "name": self.name,
            "state": self.state.value,
            "detail": self.detail,
            "remedy": self.remedy,
        }


def ok(name: str, detail: str) -> Check:
    """A check that found nothing wrong."""
    return Check(name, State.OK, detail)


def warn(name: str, detail: str, remedy: str) -> Check:
    """A check that found something a user should know."""
    return Check(name, State.WARN, detail, remedy)


def fail(name: str, detail: str, remedy: str) -> Check:
    """A check that found why runs will fail."""
    return Check(name, State.FAIL, detail, remedy)


def worst(checks: Sequence[Check]) -> State:
    """The worst state among ``checks``; OK when there are none."""
    order = list(State)
    return max((check.state for check in checks), key=order.index, default=State.OK)
