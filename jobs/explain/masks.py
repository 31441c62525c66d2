"""Which masks of a folder belong to which images, by their names."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from schemas.errors import SourceError
from schemas.protocols import SourceFile, Store
from workers.pseudonyms import Pseudonymizer, is_masked

_PICTURES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".npz", ""}
)
_SUFFIXES = (
    re.compile(r"[ _-]\d+$"),
    re.compile(r"[ _-](?:mask|seg|segmentation|roi)(?:[ _-]?\d+)?$", re.IGNORECASE),
)
"""What a mask's stem has beyond its image's; tried in this order, where no image has the stem
itself."""

_IMAGES = "SELECT image_id, uris FROM current_images WHERE dataset = $dataset"


@dataclass(frozen=True)
class _Image:
    """One file of the archive."""

    uri: str
    """As catalogued: identifiers in it are masked."""
    folders: frozenset[str]
    ids: tuple[str, ...]
    """The image ids of its frames."""


def find_masks(folder: str, dataset: str, store: Store) -> dict[str, list[dict[str, str]]]:
    """Return, by image id, the masks in a folder: their uri and etag, sorted by name.

    A mask bears its image's name, or that with ``_mask``, ``_seg``, ``_roi`` or a number after it.
    Where several images of the data set have the name, the one counts whose folders share most
    names with the mask's. All frames of a file share its masks.

    Raises:
        SourceError: if the folder can't be listed, no mask belongs to any image, or a mask may
            belong to several.
        KeyFileError: if names hold identifiers and the key is missing.
    """
    images = _Images(store.query(_IMAGES, {"dataset": dataset}))
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    unclear = 0
    for file in store.list_source(folder):
        if PurePosixPath(file.path).suffix.lower() not in _PICTURES or images.has(file.uri):
            continue
        matching = images.of_mask(file)
        unclear += len({one.ids for one in matching}) > 1
        for image in matching:
            for image_id in image.ids:
                mask = {"uri": images.as_catalogued(file.uri, image), "etag": file.etag}
                if mask not in found[image_id]:
                    found[image_id].append(mask)
    if unclear:
        raise SourceError(
            "Masks may belong to several images",
            where=folder,
            got=f"{unclear} masks whose name several images bear",
            remedy="sort the masks into folders named as those of the images",
        )
    if not found:
        raise SourceError(
            "No mask in the folder belongs to an image of the data set",
            where=folder,
            got=f"{images.count} images",
            remedy="name a mask as its image, or NAME_mask; see docs/explain.md",
        )
    return dict(found)


class _Images:
    """The images of a data set by their names."""

    def __init__(self, rows: pa.Table) -> None:
        self.count = rows.num_rows
        ids: dict[str, list[str]] = defaultdict(list)
        for row in rows.to_pylist():
            for uri in row["uris"]:
                ids[uri].append(row["image_id"])
        masked = any(is_masked(uri) for uri in ids)
        self._pseudonymizer = Pseudonymizer.from_key_file() if masked else None
        self._by_stem: dict[str, list[_Image]] = defaultdict(list)
        self._paths = set[str]()
        for uri, of_uri in ids.items():
            path = _path(self._revealed(uri))
            self._paths.add(str(path))
            image = _Image(uri, frozenset(path.parts[:-1]), tuple(sorted(of_uri)))
            self._by_stem[path.stem].append(image)

    def has(self, uri: str) -> bool:
        """Whether a file is an image of the data set itself."""
        return str(_path(uri)) in self._paths

    def of_mask(self, file: SourceFile) -> list[_Image]:
        """The images a mask may belong to; several files with equal bytes count as one."""
        path = PurePosixPath(file.path)
        named = next(
            (self._by_stem[stem] for stem in _stems(path.stem) if stem in self._by_stem), []
        )
        shared = [len(one.folders.intersection(path.parts[:-1])) for one in named]
        return [one for one, count in zip(named, shared, strict=True) if count == max(shared)]

    def as_catalogued(self, uri: str, image: _Image) -> str:
        """A mask's uri, in which the identifiers of its image's are masked too."""
        if self._pseudonymizer is None or not is_masked(image.uri):
            return uri
        return self._pseudonymizer.mask(uri, self._pseudonymizer.identifiers_in(image.uri))

    def _revealed(self, uri: str) -> str:
        return self._pseudonymizer.reveal(uri) if self._pseudonymizer is not None else uri


def _stems(stem: str) -> Iterator[str]:
    """The stems an image of this mask may have, the likeliest first."""
    yield stem
    for suffix in _SUFFIXES:
        shorter = suffix.sub("", stem)
        if shorter != stem:
            yield shorter


def _path(uri: str) -> PurePosixPath:
    return PurePosixPath(uri.removeprefix("file://"))
