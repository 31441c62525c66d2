"""Training images in memory: each rank owns a slice of the images, decoded once."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import RejectedImage, RunError

Image = NDArray[np.uint8]
Indices = NDArray[np.int64]
ReadImages = Callable[[Indices], list[Image | RejectedImage]]
"""Decode the images of some rows; each is uint8 (C, H, W)."""

READ_ROWS = 64
"""Rows handed to a reader at once, so that source bytes never pile up."""


@dataclass(frozen=True)
class Reject:
    """A row that can't be trained on."""

    row: int
    reason: RejectedImage


def none_readable(rejects: Sequence[RejectedImage]) -> RunError:
    """The error of a training whose validation images are all rejected: how many for what."""
    reasons = Counter(one.reason.value for one in rejects).most_common()
    return RunError(
        "No validation image can be read",
        got=f"{len(rejects)} images: " + ", ".join(f"{reason} {n}" for reason, n in reasons),
        remedy="run `ingest` again, which looks at the archive anew and names what is unreadable",
    )


class ImageCache:
    """Decoded images of some rows; those beyond ``max_bytes`` are decoded again when needed."""

    def __init__(
        self, rows: Indices, read: ReadImages, *, max_bytes: int, order: Indices | None = None
    ) -> None:
        """``order`` are the positions within ``rows`` in the order that is cheapest to read.

        It changes no image's place, so that a training comes out the same wherever images lie.
        """
        self._read = read
        self.rejects: list[Reject] = []
        self._held = np.zeros((0, 1, 1, 1), np.uint8)
        self._levels_C256 = np.zeros((0, 256), np.int64)
        usable = np.ones(len(rows), np.bool_)
        for position, image in read_in_order(rows, read, order):
            if isinstance(image, RejectedImage):
                self.rejects.append(Reject(int(rows[position]), image))
                usable[position] = False
                continue
            if not len(self._held):
                room = min(max_bytes // image.nbytes, len(rows))
                self._held = np.zeros((room, *image.shape), np.uint8)
            self._count_levels(image)
            if position < len(self._held):
                self._held[position] = image
        good = np.flatnonzero(usable[: len(self._held)])
        if len(good) < len(self._held):
            for place, position in enumerate(
                good.tolist()
            ):  # moved one by one: a copy would take twice
                self._held[place] = self._held[position]
            self._held = self._held[: len(good)]
        self.rows: Indices = rows[usable]
        """The rows that can be used, in the order they were given."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def held(self) -> int:
        """How many images stay in memory; they are the first of `rows`."""
        return len(self._held)

    def images(self, positions: Indices) -> NDArray[np.uint8]:
        """uint8 (N, C, H, W) of ``positions`` within `rows`.

        Raises:
            RejectedImage: when an image that could be read before can't be any more.
        """
        if self.held == len(self.rows):
            taken: NDArray[np.uint8] = self._held[positions]
            return taken
        missing = positions[positions >= self.held]
        fresh = dict(zip(missing.tolist(), self._read(self.rows[missing]), strict=True))
        chosen: list[Image] = []
        for position in positions.tolist():
            image = fresh.get(position)
            if isinstance(image, RejectedImage):
                raise image
            chosen.append(self._held[position] if image is None else image)
        return np.stack(chosen)

    def levels(self) -> NDArray[np.int64]:
        """How often each grey level occurs by channel, (C, 256), over all images of `rows`.

        Whole numbers, so that sums over ranks do not depend on how images were dealt out.
        """
        return self._levels_C256

    def _count_levels(self, image: Image) -> None:
        counts = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in image])
        known = self._levels_C256
        self._levels_C256 = known + counts if len(known) else counts.astype(np.int64)


def read_in_order(
    rows: Indices, read: ReadImages, order: Indices | None
) -> Iterator[tuple[int, Image | RejectedImage]]:
    """Yield each row's position and image, a few at a time, in ``order`` of positions."""
    positions = np.arange(len(rows)) if order is None else order
    for start in range(0, len(rows), READ_ROWS):
        part = positions[start : start + READ_ROWS]
        yield from zip(part.tolist(), read(rows[part]), strict=True)


def own_rows(rows: Sequence[int] | Indices, rank: int, world_size: int, seed: int) -> Indices:
    """The rows one rank owns for the whole training: a seeded deal, no row twice.

    Owning rows means that every image is decoded by one rank only. Slices differ by one row at
    most.
    """
    dealt = np.random.default_rng((seed, 0)).permutation(np.asarray(rows, dtype=np.int64))
    return dealt[rank::world_size]


def epoch_order(count: int, epoch: int, rank: int, seed: int) -> Indices:
    """A fresh order of a rank's ``count`` images, the same whenever this epoch is run."""
    return np.random.default_rng((seed, 1, epoch, rank)).permutation(count)
