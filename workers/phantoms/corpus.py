"""A corpus of phantoms: any image of it, its files and its truth, from the seed and an index.

Images lie under ``images/``, lesion masks under ``masks/``; the ``path`` of every fact is relative
to ``images/``, the ``mask`` of a box to the corpus.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.phantoms.broken import FORMATS, REASONS, Defect, break_file
from workers.phantoms.changes import SMALL_SHARE, Flaw, flawed, nearly
from workers.phantoms.ct import draw_ct
from workers.phantoms.encode import Format, Header, encode, encode_png
from workers.phantoms.frame import Box, Case, DrawFrame, Frame, Site
from workers.phantoms.noise import generator
from workers.phantoms.patients import PRIORS, Entry, Role, entry
from workers.phantoms.ultrasound import draw_ultrasound
from workers.phantoms.xray import draw_xray

Row = dict[str, Any]

_SITE, _SCENE, _FRAME, _CHANGE, _ENCODE = 2, 3, 4, 5, 6
"""Streams of random numbers beside those of blocks and patients."""


@dataclass(frozen=True)
class _Modality:
    """What sets a modality's images apart."""

    code: str
    """The DICOM modality."""
    draw: DrawFrame
    views: tuple[str, ...]
    formats: Mapping[Format, float]
    """Shares of file formats."""


_MODALITIES: Mapping[str, _Modality] = {
    "us": _Modality(
        "US",
        draw_ultrasound,
        ("subcostal", "intercostal", "epigastric"),
        {Format.JPEG: 0.8, Format.PNG: 0.2},
    ),
    "ct": _Modality("CT", draw_ct, ("axial",), {Format.DICOM: 0.8, Format.PNG: 0.2}),
    "xray": _Modality(
        "CR", draw_xray, ("PA", "AP"), {Format.JPEG: 0.6, Format.PNG: 0.25, Format.DICOM: 0.15}
    ),
}


@dataclass(frozen=True)
class PhantomFile:
    """One file of a corpus; the path is relative to it."""

    path: str
    data: bytes


@dataclass(frozen=True)
class Phantom:
    """One index of a corpus, rendered."""

    files: tuple[PhantomFile, ...]
    """The image, then the masks of its lesions."""
    rows: Mapping[str, list[Row]]
    """Its rows of the fact tables: metadata, boxes, scale_bars, duplicates, broken, flaws."""


@dataclass(frozen=True)
class Corpus:
    """What a corpus holds; equal values give equal bytes, and a larger count only adds files."""

    seed: int
    count: int
    size: int
    """Width of an image in pixels."""
    modalities: Mapping[str, float]
    """Relative numbers of patients by modality: us, ct, xray."""
    sites: int = 1
    scale_bar_share: float = 0.3
    near_duplicate_share: float = 0.0
    duplicate_share: float = 0.0
    broken_share: float = 0.0
    flawed_share: float = 0.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.modalities) - set(PRIORS))
        if unknown or not sum(self.modalities.values()) > 0 or min(self.modalities.values()) < 0:
            raise ValueError(
                f"modalities need weights of {', '.join(PRIORS)}, not all zero; "
                f"got {dict(self.modalities)}"
            )
        if self.seed < 0 or self.count < 1 or self.size < 32 or self.sites < 1:
            raise ValueError(
                "a corpus needs seed >= 0, count >= 1, size >= 32 and sites >= 1; "
                f"got {self.seed}, {self.count}, {self.size}, {self.sites}"
            )
        shares = self._role_shares()
        if min(*shares.values(), self.scale_bar_share) < 0 or sum(shares.values()) > 0.5:
            raise ValueError(
                "duplicates, broken and flawed files may be half of a corpus at most; "
                f"got {sum(shares.values()):.3g}"
            )

    def render(self, index: int) -> Phantom:
        """Draw and encode the image of ``index`` with all that is known about it."""
        place = self.entry(index)
        metadata = _metadata(place)
        if place.role is Role.BROKEN:
            return self._broken(place, metadata)
        rows: dict[str, list[Row]] = {"metadata": [metadata]}
        frame = self._frame(place)
        if place.role is Role.NEAR_DUPLICATE:
            frame = nearly(frame, generator(self.seed, _CHANGE, index))
        elif place.role is Role.FLAWED:
            flaw = _flaw(place)
            frame = flawed(frame, flaw, generator(self.seed, _CHANGE, index))
            rows["flaws"] = [{"path": metadata["path"], "flaw": flaw.value}]
        if place.source != index:
            source = self.metadata(place.source)["path"]
            rows["duplicates"] = [
                {"path": metadata["path"], "duplicate_of": source, "kind": place.role.value}
            ]
        image = PhantomFile(f"images/{metadata['path']}", self._encoded(frame, place, metadata))
        return Phantom((image, *_truth(frame, metadata, rows)), rows)

    def metadata(self, index: int) -> Row:
        """The metadata row of ``index``, as a hospital would have it; nothing is drawn."""
        return _metadata(self.entry(index))

    def entry(self, index: int) -> Entry:
        """The patient and the role of ``index``."""
        return entry(self.seed, index, self.modalities, self.sites, self._role_shares())

    def _role_shares(self) -> dict[Role, float]:
        return {
            Role.NEAR_DUPLICATE: self.near_duplicate_share,
            Role.EXACT_DUPLICATE: self.duplicate_share,
            Role.BROKEN: self.broken_share,
            Role.FLAWED: self.flawed_share,
        }

    def _frame(self, place: Entry) -> Frame:
        """The picture an index shows, before what its role does to it."""
        patient = place.patient
        small = place.role is Role.FLAWED and _flaw(place) is Flaw.SMALL
        case = Case(
            label=patient.label,
            view=_view(place),
            site=self._site(patient.site),
            size=max(24, round(self.size * SMALL_SHARE)) if small else self.size,
            scale_bar=place.source_traits[1] < self.scale_bar_share,
        )
        scene = generator(self.seed, _SCENE, patient.number)
        own = generator(self.seed, _FRAME, place.source)
        return _MODALITIES[patient.modality].draw(case, scene, own)

    def _site(self, number: int) -> Site:
        """A site's machines; the only site of a corpus is the average one."""
        if self.sites == 1:
            return Site(_site_name(number))
        rng = generator(self.seed, _SITE, number)
        contrast = math.exp(rng.uniform(-0.2, 0.2))
        return Site(_site_name(number), gain=rng.uniform(-1, 1), contrast=contrast)

    def _broken(self, place: Entry, metadata: Row) -> Phantom:
        defect = _defect(place)
        whole = b""
        if defect in (Defect.TRUNCATED, Defect.WRONG_MAGIC):
            whole = self._encoded(self._frame(place), place, metadata)
        rng = generator(self.seed, _CHANGE, place.index)
        data = break_file(whole, defect, self._header(place, metadata), rng)
        row = {"path": metadata["path"], "defect": defect.value, "reason": REASONS[defect].value}
        image = PhantomFile(f"images/{metadata['path']}", data)
        return Phantom((image,), {"metadata": [metadata], "broken": [row]})

    def _encoded(self, frame: Frame, place: Entry, metadata: Row) -> bytes:
        # An exact duplicate repeats the header and the compression of its source too.
        exact = place.role is Role.EXACT_DUPLICATE
        stream = generator(self.seed, _ENCODE, place.source if exact else place.index)
        return encode(frame, _format(place), self._header(place, metadata), stream)

    def _header(self, place: Entry, metadata: Row) -> Header:
        exact = place.role is Role.EXACT_DUPLICATE
        instance = f"{self.seed}/{place.source if exact else place.index}"
        return Header(place.patient, metadata["modality"], metadata["view"], instance)


def _metadata(place: Entry) -> Row:
    patient = place.patient
    return {
        "path": f"{patient.modality}/{patient.id}/{place.index:07d}.{_format(place).value}",
        "patient": patient.id,
        "sex": patient.sex,
        "age": patient.age,
        "site": _site_name(patient.site),
        "view": _view(place),
        "label": patient.label,
        "modality": _MODALITIES[patient.modality].code,
        "study_date": patient.study_date,
    }


def _view(place: Entry) -> str:
    views = _MODALITIES[place.patient.modality].views
    return views[int(place.source_traits[0] * len(views))]


def _format(place: Entry) -> Format:
    if place.role is Role.BROKEN and _defect(place) in FORMATS:
        return FORMATS[_defect(place)]
    exact = place.role is Role.EXACT_DUPLICATE
    draw = place.source_traits[2] if exact else place.traits[2]
    formats = _MODALITIES[place.patient.modality].formats
    for file_format, share in formats.items():
        draw -= share
        if draw < 0:
            return file_format
    return next(iter(formats))


def _defect(place: Entry) -> Defect:
    return list(Defect)[int(place.traits[1] * len(Defect))]


def _flaw(place: Entry) -> Flaw:
    return list(Flaw)[int(place.traits[1] * len(Flaw))]


def _site_name(number: int) -> str:
    return f"SITE-{number + 1:02d}"


def _truth(frame: Frame, metadata: Row, rows: dict[str, list[Row]]) -> list[PhantomFile]:
    """Add the rows of boxes and scale bars; returns the masks."""
    path = metadata["path"]
    masks = []
    for number, mark in enumerate(mark for mark in frame.marks if mark.mask.any()):
        mask = f"masks/{path.rsplit('.', 1)[0]}_{number}.png"
        masks.append(PhantomFile(mask, encode_png(mark.mask)))
        row = {"path": path, "patient": metadata["patient"], "category": mark.category}
        rows.setdefault("boxes", []).append(row | _box(mark.box) | {"mask": mask})
    if frame.scale_bar is not None:
        bar = frame.scale_bar
        row = {"path": path, "colour": bar.colour} | _box(bar.box)
        rows["scale_bars"] = [row | {"mm_per_tick": bar.mm_per_tick}]
    return masks


def _box(box: Box) -> Row:
    return {"x": box.x, "y": box.y, "w": box.width, "h": box.height}
