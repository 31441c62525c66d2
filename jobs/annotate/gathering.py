"""All that a source says of each image, put together."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from jobs.annotate.entries import A_MASK, Entry, fault
from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from schemas.specs.annotate import AnnotateSpec
from workers.annotations.naming import Image, NamedImages, candidates, frames_of, the_one


@dataclass
class Wanted:
    """An image to annotate, or an entry that names none."""

    place: str
    """The image's uri, or where the entry stands."""
    image: Image | None
    category: str | None = None
    """Of boxes that name none."""
    masks: list[dict[str, Any]] = field(default_factory=list)
    boxes: list[dict[str, Any]] = field(default_factory=list)

    def stated(self) -> list[str]:
        """What its rows are made from, as texts: they may hold numbers that JSON can't state."""
        image = self.image or {}
        size = [str(image.get("height")), str(image.get("width"))]
        masks = [f"{one['etag']} {one['category']}" for one in self.masks]
        # What a box is called says nothing about it, unless it is to be rejected.
        boxes = [
            repr([value for name, value in one.items() if name != "name" or one["reason"]])
            for one in self.boxes
        ]
        return [*size, str(self.category), "masks", *masks, "boxes", *boxes]


@dataclass(frozen=True)
class Gathered:
    """What there is to annotate, and what else was noticed."""

    wanted: list[Wanted]
    """In the order of the catalogue, then what names no image."""
    catalogued: int
    """Masks that the catalogue holds as images."""


def gather(spec: AnnotateSpec, images: NamedImages, entries: Iterable[Entry]) -> Gathered:
    """Put the entries of a source together by image.

    All frames of a file share an entry that names no frame. Equal boxes of an image are one, and so
    are those of its copies: files of equal bytes are one image. Of an entry that may mean several
    images each has a fault: whichever is meant would be annotated without it.
    """
    of_image: dict[str, Wanted] = {}
    lost: list[Wanted] = []
    masks = set[str]()
    for entry in entries:
        if entry.mask is not None:
            masks |= images.at(entry.place)
        named = images.bearing(entry.image, entry.beside)
        try:
            file = the_one(named)
            meant = frames_of(file, entry.frame)
        except RejectedImage as reject:
            lost.append(_lost(entry, reject, images))
            for image in candidates(named, entry.frame):
                wanted = of_image.setdefault(image["image_id"], _wanted(spec, image))
                _add_box(wanted, fault(_called(entry), reject.reason, reject.detail))
            continue
        place = images.masked(entry.place, file.uri) if entry.mask is not None else entry.place
        for image in meant:
            wanted = of_image.setdefault(image["image_id"], _wanted(spec, image))
            _add(wanted, entry, image, place)
    for row in images.rows if spec.complete or spec.dicom is not None else ():
        if row["image_id"] not in masks:
            of_image.setdefault(row["image_id"], _wanted(spec, row))
    order = {row["image_id"]: number for number, row in enumerate(images.rows)}
    found = sorted(of_image.items(), key=lambda item: order[item[0]])
    return Gathered([wanted for _, wanted in found] + lost, len(masks))


def _wanted(spec: AnnotateSpec, image: Image) -> Wanted:
    return Wanted(image["uri"], image, category=spec.category or image["label"])


def _add(wanted: Wanted, entry: Entry, image: Image, place: str) -> None:
    """Add what an entry says of an image, unless it is said already."""
    if entry.box is not None:
        _add_box(wanted, entry.box)
    elif entry.mask is not None and (mask := entry.mask | {"uri": place}) not in wanted.masks:
        wanted.masks.append(mask)
    if entry.size is not None and entry.size != (image["height"], image["width"]):
        stated, catalogued = entry.size, (image["height"], image["width"])
        told = fault(
            "its image",
            RejectReason.SIZE_MISMATCH,
            f"{stated[1]} x {stated[0]} by the file, {catalogued[1]} x {catalogued[0]} px here",
        )
        _add_box(wanted, told)


def _add_box(wanted: Wanted, box: dict[str, Any]) -> None:
    if _content(box) not in map(_content, wanted.boxes):
        wanted.boxes.append(box)


def _content(box: dict[str, Any]) -> list[Any]:
    return [value for name, value in box.items() if name != "name" or box["reason"]]


def _lost(entry: Entry, reject: RejectedImage, images: NamedImages) -> Wanted:
    """An entry that names no image, or several."""
    place = images.sealed(entry.place) if entry.mask is not None else entry.place
    masks = [entry.mask | {"uri": place}] if entry.mask is not None else []
    told = fault(_called(entry), reject.reason, reject.detail)
    return Wanted(place, None, masks=masks, boxes=[told])


def _called(entry: Entry) -> str:
    """What messages call an entry: never the name of a file, which may hold identifiers."""
    return A_MASK if entry.mask is not None else entry.place.rpartition("#")[2]
