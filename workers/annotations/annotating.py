"""The shards of a run that annotates: from masks, rows and headers to checked boxes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from schemas.errors import RejectedImage
from schemas.plan import Blob, PreparedPixels, ShardFunction, ShardResult
from schemas.reasons import TRANSIENT, RejectReason
from schemas.rejects import reject_row
from schemas.tables import rows_of
from workers.annotations.checks import Categories, Given, check_all
from workers.annotations.dicom_regions import ultrasound_regions
from workers.annotations.masks import fitted, inside, mask_boxes
from workers.reading import FrameReader

STAGE = "annotate"
WITHDRAW = "withdraw"
"""What to do with an image whose source no longer names it."""

ReadFiles = Callable[[Mapping[str, str]], Mapping[str, Blob]]
"""Reads files of uri and etag: the masks of an image."""

Row = dict[str, Any]


def load(params: Mapping[str, Any], read_files: ReadFiles) -> ShardFunction:
    """Prepare the shard function.

    ``params`` are the plan's: ``source``, ``method`` (masks, csv, coco or dicom), ``components``,
    ``min_pixels``, ``categories`` and ``allowed``.
    """
    categories = Categories(dict(params["categories"]), frozenset(params["allowed"]))
    return Annotator(params, categories, read_files)


@dataclass(frozen=True)
class Annotator:
    """Annotates the images of shards."""

    params: Mapping[str, Any]
    categories: Categories
    read_files: ReadFiles

    def __call__(self, rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        """Annotate ``rows``, whose columns `jobs.annotate` describes."""
        made: list[Row] = []
        rejects: list[Row] = []
        done = gone = boxes = 0
        for row, blob in zip(rows.to_pylist(), blobs, strict=True):
            if row["action"] == WITHDRAW:
                made.append(self._withdrawn(row))
                gone += 1
                continue
            try:
                written = self._annotated(row, blob)
            except RejectedImage as reject:
                rejects.append(self._reject(row, reject))
                # What an earlier run wrote comes from what the source no longer says.
                if row["known"] and reject.reason not in TRANSIENT:
                    made.append(self._withdrawn(row))
            else:
                made += written
                done += 1
                boxes += sum(one["category"] is not None for one in written)
        return ShardResult(
            {"annotations": rows_of("annotations", made), "rejects": rows_of("rejects", rejects)},
            done=done,
            rejected=len(rejects),
            gone=gone,
            facts={"boxes": boxes},
        )

    def _annotated(self, row: Row, blob: Blob) -> list[Row]:
        """The rows of an image: its boxes, or the one row that says that it has none."""
        if isinstance(blob, RejectedImage):
            raise blob
        boxes = [given_of(one) for one in row["boxes"] or ()]
        if row["image_id"] is None:
            # Only a fault brings a row here that names no image.
            raise boxes[0].fault or RejectedImage(RejectReason.UNKNOWN_IMAGE)
        if row["height"] is None or row["width"] is None:
            raise RejectedImage(RejectReason.SIZE_MISMATCH, "the catalogue does not know its size")
        size = (row["height"], row["width"])
        if self.params["method"] == "masks":
            boxes += self._of_masks(row, size)
        elif self.params["method"] == "dicom" and not isinstance(blob, PreparedPixels):
            boxes += ultrasound_regions(blob)
        found = check_all(boxes, size, self.categories, row["category"])
        shared = self._shared(row) | {"made_from": row["made_from"]}
        return [shared | asdict(one) for one in found] or [{**shared, **_NO_BOX}]

    def _of_masks(self, row: Row, size: tuple[int, int]) -> list[Given]:
        named: list[Given] = []
        files = self.read_files({one["uri"]: one["etag"] for one in row["masks"] or ()})
        for number, one in enumerate(row["masks"] or (), 1):
            mask = FrameReader().read(files[one["uri"]], 0, inside)
            if isinstance(mask, RejectedImage):
                raise RejectedImage(mask.reason, f"its mask {number}: {mask.detail}".rstrip(": "))
            found = mask_boxes(
                fitted(mask, *size),
                components=bool(self.params["components"]),
                min_pixels=int(self.params["min_pixels"]),
            )
            named += [
                Given(f"mask {number}", one["category"], box.x, box.y, box.w, box.h, box.area)
                for box in found
            ]
        return named

    def _shared(self, row: Row) -> Row:
        return {"image_id": row["image_id"], "source": self.params["source"]}

    def _withdrawn(self, row: Row) -> Row:
        return {**self._shared(row), **_NO_BOX}

    def _reject(self, row: Row, reject: RejectedImage) -> Row:
        # A reject stands until what the annotation was to be made from changes.
        subject = str(self.params["source"])
        return reject_row(row | {"etag": row["made_from"]}, reject, stage=STAGE, subject=subject)


_NO_BOX: Mapping[str, Any] = {
    "category": None, "x": None, "y": None, "w": None, "h": None, "area": None, "iscrowd": None
}  # fmt: skip


def given_of(box: Mapping[str, Any]) -> Given:
    """A box of a plan's row."""
    fault = RejectedImage(RejectReason(box["reason"]), box["detail"]) if box["reason"] else None
    return Given(
        name=box["name"],
        category=box["category"],
        x=box["x"],
        y=box["y"],
        w=box["w"],
        h=box["h"],
        area=box["area"],
        iscrowd=bool(box["iscrowd"]),
        fault=fault,
    )
