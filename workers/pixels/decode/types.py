"""What decoding gives (facts, and a way to the pixels), and the limits it keeps."""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode.guard import rejecting
from workers.pixels.pixels import Pixels


@dataclass(frozen=True)
class Limits:
    """What one file may ask of a worker; checked on headers, before anything is decoded."""

    max_pixels: int = 100_000_000
    """Pixels of one frame."""
    max_bytes: int = 2**30
    """Bytes of a file, of one decoded frame, and of what a file is inflated to."""

    def check_bytes(self, count: int, what: str) -> None:
        """Reject ``count`` bytes of ``what`` beyond the limit."""
        if count > self.max_bytes:
            detail = f"{what} has {count} bytes, the limit is {self.max_bytes}"
            raise RejectedImage(RejectReason.TOO_MANY_BYTES, detail)

    def check_frame(self, height: int, width: int, pixel_bytes: int = 1) -> None:
        """Reject a frame without area, with too many pixels, or with too many decoded bytes.

        ``pixel_bytes`` is what one pixel takes decoded, all its samples together.
        """
        if height < 1 or width < 1:
            raise RejectedImage(RejectReason.CORRUPT, f"{width} x {height} pixels")
        if height * width > self.max_pixels:
            detail = f"{width} x {height} pixels, the limit is {self.max_pixels}"
            raise RejectedImage(RejectReason.TOO_MANY_PIXELS, detail)
        self.check_bytes(height * width * pixel_bytes, "the decoded frame")


@dataclass(frozen=True)
class FrameFacts:
    """What a header says about one frame, as it is shown upright."""

    height: int
    width: int
    bits: int
    """Significant bits of a sample as stored; 8 for pictures of fewer bits, which are widened."""
    channels: int
    """1 or 3."""
    label: str | None = None
    """The frame's label, in files that hold labels (MedMNIST)."""
    split: str | None = None
    """The frame's part of the data set's own split, in files that hold parts (MedMNIST)."""


@dataclass(frozen=True)
class HeaderFacts:
    """What a header says about the study; all of it optional."""

    modality: str | None = None
    """DICOM modality, e.g. US, CT, CR."""
    patient_id: str | None = None
    """The identifier in the clear: to be replaced by a pseudonym before it goes anywhere."""
    identifiers: tuple[str, ...] = ()
    """All that identifies the patient and may stand in a path too: ids, names, day of birth."""
    age: float | None = None
    """Years at the study."""
    sex: str | None = None
    """F, M or O."""
    site: str | None = None
    """Institution name."""
    view: str | None = None
    """View position, e.g. PA, LL, MLO."""
    laterality: str | None = None
    """L, R, B or U."""
    study_date: str | None = None
    """ISO 8601 day."""

    def __repr__(self) -> str:
        # Site, dates and identifiers point at a person; a log needs none of them.
        return f"HeaderFacts(modality={self.modality!r}, ...)"


@dataclass(frozen=True, repr=False)
class ImageFile:
    """An opened file: facts of its header and frames, and a way to decode each frame."""

    format: str
    """png, jpeg, tiff, bmp, webp, npz or dicom."""
    frames: tuple[FrameFacts, ...]
    header: HeaderFacts
    decode: Callable[[int], Pixels]
    """Decodes one frame and may raise anything; `pixels` is the way to call it."""

    def pixels(self, frame: int = 0) -> Pixels:
        """Decode one frame.

        Raises:
            RejectedImage: if the frame can't be decoded; never anything else for bad data.
            IndexError: if the file has no such frame.
        """
        if not 0 <= frame < len(self.frames):
            raise IndexError(f"frame {frame} of {len(self.frames)}")
        with rejecting():
            return self.decode(frame)

    def __repr__(self) -> str:
        return f"ImageFile({self.format}, {len(self.frames)} frames)"
