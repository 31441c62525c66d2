"""Every error Rayward raises on purpose, and the exit code it ends a command with.

::

    RaywardError                 1
    ├── UsageError               2   the command is wrong
    │   └── JobFileError         2   the job file is wrong; carries every mistake
    ├── SourceError              1   an archive can't be listed or read
    │   └── VanishedShareError   1   most of an archive is gone at once
    ├── KeyFileError             1   the pseudonym key is missing or unsafe
    ├── LakeError                1   the lake can't be opened or holds another format
    │   └── CommitConflict       1   another run wrote what this one was about to write
    ├── RunError                 1   a run can't go on
    │   ├── CountsMismatch       1   inputs and outcomes do not add up
    │   └── ShardFailed          1   a shard failed for a reason no single image explains
    ├── LeaseHeld                5   another run holds the same work
    ├── LeaseLost                1   the lease lapsed and another driver took the work over
    ├── BundleError              1   a model bundle is missing, damaged or does not fit
    ├── SplitError               1   a split can't be made
    │   └── LeakError            1   a split has the same patient or image on two sides
    └── QueryError               1   a query can't be run

    RejectedImage                -   one image can't be used; it ends in `rejects`, the run goes on
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.reasons import RejectReason


class RaywardError(Exception):
    """Something the user can act on: what is wrong, where, what was found, what to do."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", got: str = "", remedy: str = "") -> None:
        self.what, self.where, self.got, self.remedy = what, where, got, remedy
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f" ({self.where})"
        if self.got:
            text += f": got {self.got}"
        if self.remedy:
            text += f". {self.remedy[0].upper()}{self.remedy[1:]}"
        return text if text.endswith(".") else f"{text}."

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments would be lost on the way back from a worker process.
        return _rebuild, (type(self), self.what, self.where, self.got, self.remedy)


def _rebuild(kind: type[RaywardError], what: str, where: str, got: str, remedy: str) -> object:
    return kind(what, where=where, got=got, remedy=remedy)


class UsageError(RaywardError):
    """The command line is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Mistake:
    """One mistake of a job file."""

    file: str
    line: int
    field: str
    what: str
    got: str = ""
    allowed: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}: {self.field}: {self.what}"
        if self.got:
            text += f"; got {self.got}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        return text


class JobFileError(UsageError):
    """A job file is wrong; every mistake is reported at once."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in the job file")

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.mistakes,)


class SourceError(RaywardError):
    """An archive can't be listed or read."""


class VanishedShareError(SourceError):
    """Most files of an archive are gone at once: an unmounted disk looks just like that."""


class KeyFileError(RaywardError):
    """The key of the pseudonyms is missing, damaged or readable by others."""


class LakeError(RaywardError):
    """The lake can't be opened or holds another format."""


class CommitConflict(LakeError):
    """Another run wrote what this one was about to write."""


class RunError(RaywardError):
    """A run can't go on."""


class CountsMismatch(RunError):
    """The outcomes of a run do not add up to its inputs."""


class ShardFailed(RunError):
    """A shard failed again and again, and no single image explains it."""


class LeaseHeld(RaywardError):
    """Another run holds the same work."""

    exit_code = 5


class LeaseLost(RaywardError):
    """This driver's lease lapsed and another took the work over."""


class BundleError(RaywardError):
    """A model bundle is missing, damaged or does not fit the job."""


class SplitError(RaywardError):
    """A split can't be made from this corpus."""


class LeakError(SplitError):
    """A split has the same patient, image or near-duplicate on two sides."""


class QueryError(RaywardError):
    """A query can't be run."""


class RejectedImage(Exception):
    """One image can't be used.

    ``detail`` never holds identifiers or file contents: it is written to the lake.
    """

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason, detail)

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value
