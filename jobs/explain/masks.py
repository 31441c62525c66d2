"""Which masks of a folder belong to which images, by their names."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from schemas.errors import RejectedImage, SourceError
from schemas.protocols import SourceFile, Store
from schemas.reasons import RejectReason
from workers.annotations.naming import ImageFile, NamedImages, the_one

_PICTURES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".npz", ""}
)
_SUFFIXES = (
    re.compile(r"[ _-]\d+$"),
    re.compile(r"[ _-](?:mask|seg|segmentation|roi)(?:[ _-]?\d+)?$", re.IGNORECASE),
)
"""What a mask's stem has beyond its image's; tried in this order, where no image has the stem
itself."""

_IMAGES = """
SELECT image_id, uris, frame FROM current_images
WHERE dataset = $dataset ORDER BY uri, frame, image_id
"""


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
    images = NamedImages(store.query(_IMAGES, {"dataset": dataset}).to_pylist())
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    unclear = 0
    for file in store.list_source(folder):
        if PurePosixPath(file.path).suffix.lower() not in _PICTURES or images.at(file.uri):
            continue
        try:
            of_mask = the_one(_bearing(images, file))
        except RejectedImage as reject:
            unclear += reject.reason is RejectReason.AMBIGUOUS_IMAGE
            continue
        mask = {"uri": images.masked(file.uri, of_mask.uri), "etag": file.etag}
        for image in of_mask.images:
            found[image["image_id"]].append(mask)
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
            got=f"{len(images.rows)} images",
            remedy="name a mask as its image, or NAME_mask; see docs/explain.md",
        )
    return dict(found)


def _bearing(images: NamedImages, file: SourceFile) -> list[ImageFile]:
    """The files of images a mask may belong to."""
    path = PurePosixPath(file.path)
    stems = (images.bearing(stem, path.parts[:-1]) for stem in _stems(path.stem))
    return next((named for named in stems if named), [])


def _stems(stem: str) -> Iterator[str]:
    """The stems an image of this mask may have, the likeliest first."""
    yield stem
    for suffix in _SUFFIXES:
        shorter = suffix.sub("", stem)
        if shorter != stem:
            yield shorter
