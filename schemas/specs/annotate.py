"""The spec of `annotate`: boxes of lesions from masks, tables, COCO files or DICOM headers."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.specs.base import JobSpec, Name, Spec

MASK_GROUPS = ("image", "category", "frame")
"""What the name of a mask can say."""
CSV_FIELDS = (
    "image", "frame", "category", "x", "y", "w", "h", "left", "top", "right", "bottom", "area",
    "iscrowd",
)  # fmt: skip
"""What a column of a CSV file of boxes can say."""

SourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$")]


def _checked_pattern(pattern: str) -> str:
    try:
        groups = set(re.compile(pattern).groupindex)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    unknown = sorted(groups - set(MASK_GROUPS))
    if unknown or "image" not in groups:
        raise ValueError(
            f"needs the named group image, and may have {' and '.join(MASK_GROUPS[1:])}; "
            f"got {', '.join(sorted(groups)) or 'none'}"
        )
    return pattern


class Masks(Spec):
    """Black and white pictures, one or more an image."""

    root: str = Field(min_length=1)
    """Directory, or s3://bucket/prefix, that holds the masks, perhaps beside other files."""
    path: Annotated[str, AfterValidator(_checked_pattern)]
    """Regular expression over a mask's whole path relative to `root`. Its group `image` is the end
    of the image's path, with or without the file's ending; groups `category` and `frame` may say
    more. Files that do not match are no masks."""
    each: Literal["file", "component"] = "file"
    """A box for each mask, or for each connected component of one."""
    min_pixels: int = Field(default=1, ge=1)
    """Components, or masks, of fewer pixels are specks and leave no box."""


class CsvBoxes(Spec):
    """A CSV file with a row for each box."""

    file: str = Field(min_length=1)
    """Path or URI of the CSV file."""
    columns: dict[str, str] = {}
    """Field to CSV column, where the names differ: image, frame, category, x, y, w, h (or left,
    top, right, bottom), area, iscrowd. `image` is the end of the image's path."""
    boxes: Literal["xywh", "corners"] = "xywh"
    """Whether boxes are x, y, w, h or left, top, right, bottom, in pixels from edge to edge."""

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        unknown = sorted(set(self.columns) - set(CSV_FIELDS))
        if unknown:
            raise ValueError(
                f"columns: no such field: {', '.join(unknown)}; fields: {', '.join(CSV_FIELDS)}"
            )
        return self


class CocoBoxes(Spec):
    """A COCO JSON file (images, annotations, categories)."""

    file: str = Field(min_length=1)
    """Path or URI of the JSON file."""


class DicomRegions(Spec):
    """The regions that an ultrasound device wrote into its headers (0018,6011)."""


class AnnotateSpec(JobSpec):
    """Write boxes of a data set's images from one source, new and changed ones only."""

    kind: Literal["annotate"] = "annotate"
    dataset: Name
    """The data set whose images are annotated."""
    source: SourceName = Field(default_factory=lambda given: f"{given['dataset']}-{given['name']}")
    """Who annotated, with a version if you like: `reader@2`. What a later run writes of an image
    under this name replaces what an earlier one wrote; `<dataset>-<job name>` when not given."""
    masks: Masks | None = None
    """Boxes around masks."""
    csv: CsvBoxes | None = None
    """Boxes of a CSV file."""
    coco: CocoBoxes | None = None
    """Boxes of a COCO JSON file."""
    dicom: DicomRegions | None = None
    """Regions of DICOM headers; write `dicom: {}`."""
    category: str | None = Field(default=None, min_length=1)
    """Category of boxes whose source names none; the image's label when not given."""
    categories: dict[str, str] = {}
    """Category of the source (or label) to the category it becomes: `{benign: lesion}`. Others stay
    as they are."""
    allowed: tuple[str, ...] = ()
    """Categories there may be; an image with another one is rejected. All when empty."""
    complete: bool = False
    """The source has looked at every image: images it does not name have no box. Otherwise they
    count as not annotated."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [
            name for name in ("masks", "csv", "coco", "dicom") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                "a job annotates from one of masks, csv, coco and dicom; "
                f"got {' and '.join(given) or 'none'}"
            )
        if self.complete and self.dicom is not None:
            raise ValueError("complete says nothing of dicom: every header is read")
        if self.allowed and self.category is not None:
            named = self.categories.get(self.category, self.category)
            if named not in self.allowed:
                raise ValueError(f"category {named} is not among allowed")
        return self
