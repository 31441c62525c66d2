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
    UNKNOWN_IMAGE = "unknown_image"
    """An annotation names an image that the data set does not have."""
    AMBIGUOUS_IMAGE = "ambiguous_image"
    """An annotation names an image by a name that several images bear."""
    UNKNOWN_CATEGORY = "unknown_category"
    OUTSIDE_IMAGE = "outside_image"
    """A box reaches out of its image."""
    EMPTY_BOX = "empty_box"
    """A box without width, height or area."""
    SIZE_MISMATCH = "size_mismatch"
    """A mask, or what an annotation file says, is of another size than the image."""
    DUPLICATE_ID = "duplicate_id"
    INVALID_ID = "invalid_id"
    """An annotation's id is 0, negative or no whole number."""
    MALFORMED_ANNOTATION = "malformed_annotation"
    """A box whose numbers are missing or none."""
    CHANGED_DURING_RUN = "changed_during_run"
    GONE_DURING_RUN = "gone_during_run"
    CRASHED_WORKER = "crashed_worker"
    OUT_OF_MEMORY = "out_of_memory"
    GATE_DISCARDED = "gate_discarded"
    FAILED = "failed"
    """An exception nobody foresaw, whose class the detail names; or a model whose outputs for the
    image are no finite numbers."""


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


class Suspicion(StrEnum):
    """Why the record of an image looks wrong (column `suspects.reason`)."""

    AGE_ZERO = "age_zero"
    """Below one year, with a label whose other patients are adults."""
    AGE_BELOW_ZERO = "age_below_zero"
    AGE_HIGH = "age_high"
    SEX_MISSING = "sex_missing"
    SEX_CONTRADICTS = "sex_contradicts"
    """Another image of the patient says another sex."""
    BOX_LARGE = "box_large"
    BOX_SMALL = "box_small"


class RunState(StrEnum):
    """What became of a run (column `runs.state`)."""

    RUNNING = "running"
    HELD = "held"
    PUBLISHED = "published"
    DISCARDED = "discarded"
    ABANDONED = "abandoned"
