"""The images of a data set by the ends of their paths."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.errors import RejectedImage
from schemas.protocols import Store
from schemas.reasons import RejectReason
from workers.pseudonyms import Pseudonymizer, is_masked

_IMAGES = """
SELECT image_id, uri, uris, frame, etag, bytes, label, height, width
FROM current_images WHERE dataset = $dataset ORDER BY uri, frame, image_id
"""

Image = dict[str, Any]


@dataclass(frozen=True)
class _File:
    """One file of the archive."""

    uri: str
    """As catalogued: identifiers in it are masked."""
    parts: tuple[str, ...]
    """Its path in the clear."""
    images: tuple[Image, ...]
    """Its frames."""


class Images:
    """The images of a data set, found by what annotations call them."""

    def __init__(self, dataset: str, store: Store) -> None:
        """Read the catalogue.

        Raises:
            KeyFileError: if names hold identifiers and the key is missing.
        """
        self.rows: list[Image] = store.query(_IMAGES, {"dataset": dataset}).to_pylist()
        frames: dict[str, list[Image]] = defaultdict(list)
        for row in self.rows:
            for uri in row["uris"]:
                frames[uri].append(row)
        masked = any(is_masked(uri) for uri in frames)
        self._pseudonymizer = Pseudonymizer.from_key_file() if masked else None
        self._by_name: dict[str, list[_File]] = defaultdict(list)
        self._by_stem: dict[str, list[_File]] = defaultdict(list)
        for uri, images in frames.items():
            parts = _parts(self._revealed(uri))
            file = _File(uri, parts, tuple(images))
            self._by_name[parts[-1]].append(file)
            stem, _, ending = parts[-1].rpartition(".")
            if stem and ending:
                self._by_stem[stem].append(file)

    def find(self, name: str, beside: Sequence[str], frame: int | None) -> tuple[str, list[Image]]:
        """The images that ``name`` is of: the uri of their file, and its frames or the one asked.

        ``name`` is the end of a path, folder by folder; its last part may lack the file's ending.
        Of several files that have it the one counts whose folders share most names with ``beside``;
        files of equal bytes are one.

        Raises:
            RejectedImage: `unknown_image` or `ambiguous_image`.
        """
        *folders, last = _parts(self._revealed(name.replace("\\", "/"))) or [""]
        named = _ending(self._by_name.get(last, []), folders)
        named = named or _ending(self._by_stem.get(last, []), folders)
        if len(named) > 1 and beside:
            shared = [len(set(file.parts[:-1]).intersection(beside)) for file in named]
            named = [
                file for file, count in zip(named, shared, strict=True) if count == max(shared)
            ]
        if not named:
            raise RejectedImage(RejectReason.UNKNOWN_IMAGE, "the data set has no such image")
        if len({tuple(one["image_id"] for one in file.images) for file in named}) > 1:
            raise RejectedImage(
                RejectReason.AMBIGUOUS_IMAGE, f"{len(named)} images of the data set bear its name"
            )
        file = named[0]
        meant = [one for one in file.images if frame is None or one["frame"] == frame]
        if not meant:
            raise RejectedImage(RejectReason.UNKNOWN_IMAGE, f"its file has no frame {frame}")
        return file.uri, meant

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


def _ending(files: Sequence[_File], folders: Sequence[str]) -> list[_File]:
    """The files whose folders end as asked."""
    if not folders:
        return list(files)
    wanted = tuple(folders)
    return [file for file in files if file.parts[:-1][-len(wanted) :] == wanted]


def _parts(uri: str) -> tuple[str, ...]:
    """Folders and name; by hand, since `pathlib` would take a quarter of the time of planning."""
    return tuple(part for part in uri.removeprefix("file://").split("/") if part and part != ".")
