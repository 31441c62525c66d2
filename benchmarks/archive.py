"""An archive of JPEG files that are all different and cheap to make."""

import os
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from workers.phantoms.corpus import Corpus

DISTINCT = 96
"""Pictures drawn; the others repeat their pixels under other bytes."""
SIDE_PX = 1024
"""Side of a chest X-ray phantom; its JPEG has about 0.2 MB."""
_SEED = 11


def make_archive(folder: Path, count: int, side_px: int = SIDE_PX) -> None:
    """Write ``count`` chest X-ray phantoms as `NNNNN-LABEL.jpg`.

    File ``i`` holds the pixels of picture ``i % DISTINCT`` and a JPEG comment with ``i``, so that
    every file has a content hash, and so an image_id, of its own.
    """
    indices = _jpeg_indices(side_px)
    chosen = [(next(indices), side_px) for _ in range(min(DISTINCT, count))]
    with get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        pictures = pool.starmap(_render, chosen, chunksize=4)
    for number in range(count):
        label, data = pictures[number % len(pictures)]
        (folder / f"{number:05d}-{label}.jpg").write_bytes(with_comment(data, b"%d" % number))


def with_comment(jpeg: bytes, text: bytes) -> bytes:
    """The JPEG with a comment segment (ITU-T T.81, B.2.4.5) right after its start of image."""
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def _corpus(side_px: int) -> Corpus:
    return Corpus(seed=_SEED, count=10**6, size=side_px, modalities={"xray": 1})


def _jpeg_indices(side_px: int) -> Iterator[int]:
    corpus = _corpus(side_px)
    return (i for i in range(corpus.count) if str(corpus.metadata(i)["path"]).endswith(".jpg"))


def _render(index: int, side_px: int) -> tuple[str, bytes]:
    phantom = _corpus(side_px).render(index)
    return str(phantom.rows["metadata"][0]["label"]), phantom.files[0].data
