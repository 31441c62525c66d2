"""CT phantoms: axial slices of a chest in Hounsfield units, with or without a lung nodule.

Everything is drawn on one grid of ``size`` pixels that spans 355 mm; lengths are in mm.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from workers.phantoms.frame import Case, Frame, Mark
from workers.phantoms.noise import Array, smooth_field
from workers.phantoms.placing import random_placement

FIELD_MM = 355.0
"""Width of the reconstructed field."""
WINDOW_CENTRE, WINDOW_WIDTH = -600.0, 1500.0
"""The usual lung window, HU."""

_AIR, _LUNG, _FAT, _MUSCLE, _BONE = -1000.0, -860.0, -95.0, 45.0, 420.0
_SHIFT = 4
"""Fractional bits of drawing coordinates."""


@dataclass(frozen=True)
class _Canvas:
    """A slice under construction, float32 HU, and its scale."""

    hu: Array
    px_per_mm: float

    def point(self, x_mm: float, y_mm: float) -> tuple[int, int]:
        """Fixed-point pixel of a position relative to the middle of the slice."""
        middle = self.hu.shape[1] / 2
        unit = 2**_SHIFT
        return (
            round((x_mm * self.px_per_mm + middle) * unit),
            round((y_mm * self.px_per_mm + middle) * unit),
        )

    def ellipse(
        self, centre: tuple[float, float], axes: tuple[float, float], turn: float, value: float
    ) -> None:
        """Fill an ellipse; axes are half widths, ``turn`` is in degrees."""
        unit = self.px_per_mm * 2**_SHIFT
        half = (max(1, round(axes[0] * unit)), max(1, round(axes[1] * unit)))
        cv2.ellipse(self.hu, self.point(*centre), half, turn, 0, 360, value, -1, cv2.LINE_8, _SHIFT)

    def line(
        self, start: tuple[float, float], end: tuple[float, float], width_mm: float, value: float
    ) -> None:
        """Draw a straight piece."""
        thick = max(1, round(width_mm * self.px_per_mm))
        cv2.line(self.hu, self.point(*start), self.point(*end), value, thick, cv2.LINE_8, _SHIFT)


@dataclass(frozen=True)
class _Chest:
    """Measures of a patient's chest, mm."""

    half_width: float
    half_height: float
    fat: float
    lung_half_width: float
    lung_half_height: float
    lung_offset: float
    heart: float


@dataclass(frozen=True)
class _Nodule:
    """A nodule of a patient: where it lies in a lung and how it looks."""

    side: float
    angle: float
    """Direction from the middle of the lung."""
    eccentricity: float
    """Distance from the middle of the lung as a share of its reach."""
    radius: float
    level: float
    """HU; low ones look like ground glass."""
    spikes: int
    """Spiculae; none for a smooth nodule."""


def draw_ct(case: Case, patient: np.random.Generator, own: np.random.Generator) -> Frame:
    """Draw one axial slice, (H, W) int16 HU, H = W."""
    size = case.size
    chest, nodule = _plan_chest(patient), _plan_nodule(case.label, patient)
    slice_chest = replace(
        chest,
        lung_half_height=chest.lung_half_height * own.uniform(0.82, 1.06),
        lung_half_width=chest.lung_half_width * own.uniform(0.88, 1.05),
        heart=chest.heart * own.uniform(0.55, 1.1),
    )
    middle = (own.uniform(-9, 9), own.uniform(-9, 9))
    canvas = _Canvas(np.full((size, size), _AIR, np.float32), size / FIELD_MM)
    _draw_body(canvas, slice_chest, middle, own)
    lungs = _draw_lungs(canvas, slice_chest, middle, own)
    _draw_mediastinum(canvas, slice_chest, middle, own)
    _draw_lung_vessels(canvas, slice_chest, middle, lungs, own)
    place = random_placement(own, (size, size), turn=14, zoom=(0.85, 1.4), shift=0.07)
    marks = []
    if nodule is not None:
        mask = _draw_nodule(canvas, slice_chest, middle, nodule, own)
        marks.append(Mark(case.label, place.mask(mask)))
    shown = replace(canvas, hu=place.image(canvas.hu, _AIR))
    return Frame(
        pixels=_reconstructed(shown, case, own),
        grey_step=WINDOW_WIDTH / 255,
        spacing_mm=FIELD_MM / size,
        marks=tuple(mark for mark in marks if mark.mask.any()),
    )


def _plan_chest(patient: np.random.Generator) -> _Chest:
    half_width = patient.uniform(132, 166)
    half_height = half_width * patient.uniform(0.60, 0.80)
    return _Chest(
        half_width=half_width,
        half_height=half_height,
        fat=patient.uniform(6, 22),
        lung_half_width=half_width * patient.uniform(0.31, 0.36),
        lung_half_height=half_height * patient.uniform(0.62, 0.78),
        lung_offset=half_width * patient.uniform(0.46, 0.50),
        heart=patient.uniform(26, 44),
    )


def _plan_nodule(label: str, patient: np.random.Generator) -> _Nodule | None:
    """Benign nodules are small, round and smooth; malignant ones larger, uneven and spiculated."""
    if label not in ("benign", "malignant"):
        return None
    malignant = label == "malignant"
    return _Nodule(
        side=float(patient.choice([-1.0, 1.0])),
        angle=patient.uniform(0, 2 * math.pi),
        eccentricity=patient.uniform(0.1, 0.72),
        radius=patient.uniform(5.5, 12.0) if malignant else patient.uniform(4.0, 9.5),
        level=patient.uniform(-450, 40) if malignant else patient.uniform(-400, 140),
        spikes=int(patient.integers(6, 13)) if malignant else 0,
    )


def _draw_body(
    canvas: _Canvas, chest: _Chest, middle: tuple[float, float], own: np.random.Generator
) -> None:
    """Skin, fat, muscle, ribs and the table below."""
    x0, y0 = middle
    table = y0 + chest.half_height + own.uniform(4, 14)
    canvas.ellipse((0, table + 90), (240, 90), 0, -620)
    canvas.ellipse((0, table + 94), (236, 90), 0, _AIR)
    canvas.ellipse(middle, (chest.half_width, chest.half_height), 0, _FAT)
    inner = (chest.half_width - chest.fat, chest.half_height - 0.8 * chest.fat)
    canvas.ellipse(middle, inner, 0, _MUSCLE)
    turn = own.uniform(0, 0.5)
    for rib in range(12):
        angle = turn + rib * math.pi / 6
        reach_x, reach_y = inner[0] - 9, inner[1] - 9
        place = (x0 + reach_x * math.cos(angle), y0 + reach_y * math.sin(angle))
        tangent = math.degrees(math.atan2(reach_y * math.cos(angle), -reach_x * math.sin(angle)))
        canvas.ellipse(place, (own.uniform(7, 15), 4.2), tangent, _BONE)
        canvas.ellipse(place, (own.uniform(4, 9), 2.0), tangent, 180)


def _draw_lungs(
    canvas: _Canvas, chest: _Chest, middle: tuple[float, float], own: np.random.Generator
) -> Array:
    """Both lungs; returns their mask (H, W), uint8."""
    before = canvas.hu.copy()
    for side in (-1.0, 1.0):
        centre = (middle[0] + side * chest.lung_offset, middle[1] - 2)
        axes = (chest.lung_half_width, chest.lung_half_height * own.uniform(0.94, 1.05))
        canvas.ellipse(centre, axes, side * own.uniform(2, 9), _LUNG)
    return np.where(before == canvas.hu, np.uint8(0), np.uint8(255))


def _draw_mediastinum(
    canvas: _Canvas, chest: _Chest, middle: tuple[float, float], own: np.random.Generator
) -> None:
    """Heart or great vessels, airways, spine with its canal, aorta."""
    x0, y0 = middle
    blood = own.uniform(30, 190)
    canvas.ellipse((x0 + 8, y0 - 22), (chest.heart, chest.heart * 0.85), 35, 45 + 0.4 * blood)
    canvas.ellipse((x0 + 12, y0 - 20), (chest.heart * 0.55, chest.heart * 0.5), 20, blood)
    canvas.ellipse((x0, y0 + 6), (own.uniform(15, 24), own.uniform(14, 24)), 0, _MUSCLE)
    spine_y = y0 + chest.half_height * 0.52
    canvas.ellipse((x0, spine_y + 14), (24, 16), 0, _MUSCLE)
    canvas.ellipse((x0, spine_y), (17, 14), 0, _BONE)
    canvas.ellipse((x0, spine_y), (14, 11), 0, 190)
    canvas.line((x0, spine_y + 20), (x0, spine_y + 38), 5, _BONE)
    for side in (-1.0, 1.0):
        canvas.line((x0, spine_y + 19), (x0 + side * 27, spine_y + 25), 6, 330)
    canvas.ellipse((x0, spine_y + 19), (8.5, 6.5), 0, 30)
    canvas.ellipse((x0 + 21, spine_y - 16), (11.5, 11.5), 0, blood)
    for side in (-1.0, 1.0):
        canvas.ellipse((x0 + side * own.uniform(4, 17), y0 + own.uniform(-2, 8)), (5, 6), 0, -980)


def _draw_lung_vessels(
    canvas: _Canvas,
    chest: _Chest,
    middle: tuple[float, float],
    lungs: Array,
    own: np.random.Generator,
) -> None:
    """Vessels from the hila outwards, thinner towards the pleura, and their cross-sections."""
    drawn = _Canvas(canvas.hu.copy(), canvas.px_per_mm)
    for side in (-1.0, 1.0):
        hilum = (middle[0] + side * chest.lung_offset * 0.5, middle[1] + own.uniform(-4, 8))
        for _ in range(own.integers(6, 11)):
            heading = own.uniform(-1.35, 1.35)
            _grow(drawn, hilum, side, heading, own)
        for _ in range(own.integers(10, 22)):
            angle, share = own.uniform(0, 2 * math.pi), math.sqrt(own.random())
            place = (
                middle[0]
                + side * chest.lung_offset
                + chest.lung_half_width * share * math.cos(angle),
                middle[1] + chest.lung_half_height * share * math.sin(angle),
            )
            radius = own.uniform(0.9, 3.6 - 2.0 * share)
            drawn.ellipse(place, (radius, radius * own.uniform(0.7, 1.3)), 0, own.uniform(-300, 40))
    cv2.copyTo(drawn.hu, lungs, canvas.hu)


def _grow(
    canvas: _Canvas,
    start: tuple[float, float],
    side: float,
    heading: float,
    own: np.random.Generator,
) -> None:
    width, place = own.uniform(3.0, 5.5), start
    for _ in range(own.integers(3, 6)):
        length = own.uniform(7, 17)
        heading += own.uniform(-0.35, 0.35)
        end = (
            place[0] + side * length * math.cos(heading),
            place[1] + length * math.sin(heading),
        )
        canvas.line(place, end, width, -40 - 60 * (5 - width))
        place, width = end, width * 0.76


def _draw_nodule(
    canvas: _Canvas,
    chest: _Chest,
    middle: tuple[float, float],
    nodule: _Nodule,
    own: np.random.Generator,
) -> Array:
    """Draw a nodule as this slice cuts it; returns its mask (H, W), uint8."""
    reach = (chest.lung_half_width - nodule.radius, chest.lung_half_height - nodule.radius)
    share = nodule.eccentricity + own.uniform(-0.06, 0.06)
    angle = nodule.angle + own.uniform(-0.15, 0.15)
    # The heart covers the inner part of a lung; a nodule there would be drawn over it.
    inward = math.cos(angle) * nodule.side < 0
    centre = (
        middle[0]
        + nodule.side * chest.lung_offset
        + reach[0] * share * math.cos(angle) * (0.45 if inward else 1.0),
        middle[1] + reach[1] * share * math.sin(angle),
    )
    radius = nodule.radius * own.uniform(0.8, 1.05)
    mask = _Canvas(np.zeros_like(canvas.hu), canvas.px_per_mm)
    points = []
    phases = own.uniform(0, 2 * math.pi, 3)
    rough = 0.16 if nodule.spikes else 0.04
    for step in range(28):
        phi = step * 2 * math.pi / 28
        wave = sum(math.cos((k + 2) * phi + phases[k]) for k in range(3))
        length = radius * (1 + rough * wave)
        points.append(
            mask.point(centre[0] + length * math.cos(phi), centre[1] + length * math.sin(phi))
        )
    outline = np.array(points, np.int32)
    cv2.fillPoly(mask.hu, [outline], 1.0, cv2.LINE_8, _SHIFT)
    cv2.fillPoly(canvas.hu, [outline], nodule.level, cv2.LINE_8, _SHIFT)
    for spike in range(nodule.spikes):
        phi = spike * 2 * math.pi / nodule.spikes + own.uniform(-0.3, 0.3)
        length = radius * own.uniform(1.4, 2.1)
        tip = (centre[0] + length * math.cos(phi), centre[1] + length * math.sin(phi))
        canvas.line(centre, tip, 1.2, nodule.level - 120)
    return np.where(mask.hu > 0, np.uint8(255), np.uint8(0))


def _reconstructed(canvas: _Canvas, case: Case, own: np.random.Generator) -> Array:
    """Point spread, correlated noise and the site's calibration: (H, W) int16 HU."""
    shape = (canvas.hu.shape[0], canvas.hu.shape[1])
    scale = shape[0] / 256
    hu: Array = cv2.GaussianBlur(canvas.hu, (0, 0), own.uniform(0.55, 0.95) * scale)
    texture = cv2.GaussianBlur(own.standard_normal(shape, dtype=np.float32), (0, 0), 0.7 * scale)
    noise_hu = own.uniform(25, 70) / case.site.contrast
    # Breathing changes the density of tissue from slice to slice, not that of the air outside.
    haze: Array = 18 * smooth_field(own, shape, (6, 6)) + own.uniform(-30, 30)
    hu += noise_hu * texture + np.where(hu > -960, haze, np.float32(0)) + 25 * case.site.gain
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
