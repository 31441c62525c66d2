"""The images of a data set by the ends of their paths, as annotations and masks name them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pseudonyms import Pseudonymizer, is_masked

Image = dict[str, Any]
"""A row of the catalogue: ``image_id``, ``uris``, ``frame``, and whatever else a caller wants."""


@dataclass(frozen=True)
class ImageFile:
    """One file of the archive."""

    uri: str
    """As catalogued: identifiers in it are masked."""
    parts: tuple[str, ...]
    """Its path in the clear."""
    images: tuple[Image, ...]
    """Its frames."""


class NamedImages:
    """The images of a data set, found by what annotations call them."""

    def __init__(self, rows: Iterable[Image]) -> None:
        """Read their names.

        Raises:
            KeyFileError: if names hold identifiers and the key is missing.
        """
        self.rows = list(rows)
        frames: dict[str, list[Image]] = defaultdict(list)
        for row in self.rows:
            for uri in row["uris"]:
                frames[uri].append(row)
        masked = any(is_masked(uri) for uri in frames)
        self._pseudonymizer = Pseudonymizer.from_key_file() if masked else None
        self._by_name: dict[str, list[ImageFile]] = defaultdict(list)
        self._by_stem: dict[str, list[ImageFile]] = defaultdict(list)
        for uri, images in frames.items():
            parts = _parts(self._revealed(uri))
            file = ImageFile(uri, parts, tuple(images))
            self._by_name[parts[-1]].append(file)
            stem, _, ending = parts[-1].rpartition(".")
            if stem and ending:
                self._by_stem[stem].append(file)

    def bearing(self, name: str, beside: Sequence[str] = ()) -> list[ImageFile]:
        """The files that ``name`` may mean; none where the data set has no such image.

        ``name`` is the end of a path, folder by folder; its last part may lack the file's ending.
        Of several files that have it those count whose folders share most names with ``beside``.
        """
        *folders, last = _parts(self._revealed(name.replace("\\", "/"))) or [""]
        named = _ending(self._by_name.get(last, []), folders)
        named = named or _ending(self._by_stem.get(last, []), folders)
        if len(named) < 2 or not beside:
            return named
        shared = [len(set(file.parts[:-1]).intersection(beside)) for file in named]
        return [file for file, count in zip(named, shared, strict=True) if count == max(shared)]

    def at(self, uri: str) -> set[str]:
        """The ids of the images of a file that the catalogue holds itself; none for any other."""
        parts = _parts(uri)
        return {
            image["image_id"]
            for file in self._by_name.get(parts[-1], [])
            if file.parts == parts
            for image in file.images
        }

    def masked(self, uri: str, image_uri: str) -> str:
        """A uri in which the identifiers of an image's uri are masked too."""
        if self._pseudonymizer is None or not is_masked(image_uri):
            return uri
        return self._pseudonymizer.mask(uri, self._pseudonymizer.identifiers_in(image_uri))

    def sealed(self, uri: str) -> str:
        """A uri that belongs to no image: whole as a token where names hold identifiers."""
        return uri if self._pseudonymizer is None else self._pseudonymizer.seal(uri)

    def _revealed(self, uri: str) -> str:
        return self._pseudonymizer.reveal(uri) if self._pseudonymizer is not None else uri


def the_one(files: Sequence[ImageFile]) -> ImageFile:
    """The file that is meant, where its name was borne by ``files``; equal ones are one.

    Raises:
        RejectedImage: `unknown_image` or `ambiguous_image`.
    """
    if not files:
        raise RejectedImage(RejectReason.UNKNOWN_IMAGE, "the data set has no such image")
    if len({tuple(image["image_id"] for image in file.images) for file in files}) > 1:
        raise RejectedImage(
            RejectReason.AMBIGUOUS_IMAGE, f"{len(files)} images of the data set bear its name"
        )
    return files[0]


def frames_of(file: ImageFile, frame: int | None) -> list[Image]:
    """The frame of a file that is asked for, or all.

    Raises:
        RejectedImage: `unknown_image` if it has no such frame.
    """
    meant = [image for image in file.images if frame is None or image["frame"] == frame]
    if not meant:
        raise RejectedImage(RejectReason.UNKNOWN_IMAGE, f"its file has no frame {frame}")
    return meant


def candidates(files: Sequence[ImageFile], frame: int | None) -> list[Image]:
    """The images one of which is meant, where it can't be told which; all if none has the frame."""
    images = distinct(image for file in files for image in file.images)
    return [image for image in images if image["frame"] == frame] or images


def distinct(images: Iterable[Image]) -> list[Image]:
    """Each image once, by its id, in order."""
    return list({image["image_id"]: image for image in images}.values())


def _ending(files: Sequence[ImageFile], folders: Sequence[str]) -> list[ImageFile]:
    """The files whose folders end as asked."""
    if not folders:
        return list(files)
    wanted = tuple(folders)
    return [file for file in files if file.parts[:-1][-len(wanted) :] == wanted]


def _parts(uri: str) -> tuple[str, ...]:
    """Folders and name; by hand, since `pathlib` would take a quarter of the time of planning."""
    return tuple(part for part in uri.removeprefix("file://").split("/") if part and part != ".")
