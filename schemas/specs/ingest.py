"""The spec of `ingest`: catalogue what lies in an archive."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator

from schemas.globs import Glob
from schemas.specs.base import JobSpec, Name, Share, Spec

METADATA_FIELDS = (
    "patient", "age", "sex", "site", "view", "label", "split", "modality", "study_date",
)  # fmt: skip
"""What a path pattern or a metadata file can say about an image."""


def _checked_pattern(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    unknown = sorted(set(groups) - set(METADATA_FIELDS))
    if unknown or not groups:
        raise ValueError(
            f"needs named groups out of {', '.join(METADATA_FIELDS)}; "
            f"got {', '.join(unknown) or 'none'}"
        )
    return pattern


Pattern = Annotated[str, AfterValidator(_checked_pattern)]


class PathFields(Spec):
    """Metadata read off the path."""

    path: Pattern
    """Regular expression over the path relative to the source, with named groups."""


class MetadataFile(Spec):
    """Metadata read off a CSV file."""

    file: str
    """Path or URI of the CSV file."""
    key: str = "path"
    """The CSV column that names the image: a relative path, or a file name."""
    match: Literal["path", "name", "stem"] = "path"
    """What the key holds: the path relative to the source, the file name, or the name's stem."""
    columns: dict[str, str] = {}
    """Field of the catalogue to CSV column, where the names differ."""


class IngestSpec(JobSpec):
    """Catalogue the images below a directory or an S3 prefix, new and changed ones only."""

    kind: Literal["ingest"] = "ingest"
    dataset: Name = Field(default_factory=lambda given: str(given["name"]))
    """Name of the data set in the lake; the job's name when not given."""
    source: str = Field(min_length=1)
    """Directory, or s3://bucket/prefix."""
    include: tuple[Glob, ...] = ()
    """Patterns, as `.gitignore` has them, of the files to catalogue: `*.dcm`, `/2026/`. Everything
    when not given."""
    exclude: tuple[Glob, ...] = ()
    """Patterns of files to leave out nevertheless: `*_mask*`, `masks/`. They aren't read, and count
    as gone if they were catalogued."""
    modality: str | None = None
    """DICOM modality of files that do not say: US, CT, CR, DX, MR ..."""
    fields: PathFields | None = None
    """Metadata read off the path."""
    metadata: MetadataFile | None = None
    """Metadata read off a CSV file; wins over the path."""
    labels: dict[str, str] = {}
    """Label of the path or the metadata file to the label it becomes, where several are one:
    `{benign: nodule, malignant: nodule}`. Others stay as they are."""
    patients: Name | None = None
    """Whose patient numbers these are, for archives that number different people alike: numbers of
    different names are different patients. Without a name, equal numbers are one patient in the
    whole lake. Set it at the first ingest: headers of files that did not change are not read
    again."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Pixels of a frame beyond which a file is rejected unread."""
    max_bytes: int = Field(default=2**30, ge=1)
    """Bytes of a file beyond which it is rejected unread."""
    max_gone_share: Share = 0.5
    """Share of the catalogued files that may vanish at once before the job stops."""

    @field_validator("labels")
    @classmethod
    def _lead_somewhere(cls, labels: dict[str, str]) -> dict[str, str]:
        for old, new in labels.items():
            if not old.strip() or not new.strip():
                raise ValueError("labels: a label must not be empty")
            if new in labels and labels[new] != new:
                raise ValueError(f"labels: {old} becomes {new}, which becomes {labels[new]}")
        return labels

    _outside_identity: ClassVar[frozenset[str]] = JobSpec._outside_identity | {"max_gone_share"}
