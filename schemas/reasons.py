"""The closed lists of reasons: why an input became no result, and why an image was dropped."""

from enum import StrEnum


class RejectReason(StrEnum):
    """Why an input did not become a result (table `rejects`)."""

    EMPTY_FILE = "empty_file"
    UNKNOWN_FORMAT = "unknown_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_BYTES = "too_many_bytes"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    """The pixels are compressed in a way no installed decoder reads."""
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    """The pixels have a layout that is no picture: complex numbers, two channels."""
    NO_PIXELS = "no_pixels"
    """A DICOM object without pixel data: a directory, a report, a plan."""
    ANIMATED = "animated"
    UNREADABLE = "unreadable"
    """The store or the disk failed to hand out the bytes."""
    CHANGED_DURING_RUN = "changed_during_run"
    GONE_DURING_RUN = "gone_during_run"
    CRASHED_WORKER = "crashed_worker"
    OUT_OF_MEMORY = "out_of_memory"
    GATE_DISCARDED = "gate_discarded"
    FAILED = "failed"
    """An exception nobody foresaw; the detail names its class."""


TRANSIENT = frozenset(
    {
        RejectReason.CHANGED_DURING_RUN,
        RejectReason.GONE_DURING_RUN,
        RejectReason.UNREADABLE,
        RejectReason.OUT_OF_MEMORY,
    }
)
"""Rejects that say nothing about the bytes: every plan asks for such an input again.

`crashed_worker` is none of them: an image that killed its process would kill the next one."""


class DropReason(StrEnum):
    """Why cleaning keeps an image out (column `quality.reason`)."""

    TOO_SMALL = "too_small"
    BLANK = "blank"
    DARK = "dark"
    BLURRED = "blurred"
    NEAR_DUPLICATE = "near_duplicate"


class RunState(StrEnum):
    """What became of a run (column `runs.state`)."""

    RUNNING = "running"
    HELD = "held"
    PUBLISHED = "published"
    DISCARDED = "discarded"
    ABANDONED = "abandoned"
