"""X-ray phantoms: frontal chest radiographs, with or without the opacities of a pneumonia.

Drawn as attenuation in shares of the image's size: 0 is black (air), 1 white (bone).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from workers.phantoms.frame import Case, Frame, Mark
from workers.phantoms.noise import Array, fractal_field, smooth_field, softened
from workers.phantoms.placing import random_placement

_SHIFT = 4
"""Fractional bits of drawing coordinates."""


@dataclass(frozen=True)
class _Thorax:
    """Where things lie, in shares of the image's width and height."""

    middle: float
    apex: float
    base: float
    lung_half_width: float
    lung_offset: float
    heart_half_width: float
    rib_pitch: float
    tilt: float


def draw_xray(case: Case, patient: np.random.Generator, own: np.random.Generator) -> Frame:
    """Draw one frontal chest radiograph, (H, W) float32 from 0 to 1, H about 0.92 W."""
    shape = (round(case.size * 0.92), case.size)
    # Soft shadows have no fine detail: they are drawn at half the size.
    half = ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
    thorax = _plan_thorax(case.view, patient, own)
    lungs = softened(_lung_mask(half, thorax), 0.011 * half[1]) * (1 - 0.8 * _heart(half, thorax))
    texture = 1 + 0.07 * fractal_field(own, half, 4, 3)
    shadows = _soft_tissue(half, thorax, own) - own.uniform(0.26, 0.38) * lungs * texture
    place = random_placement(own, shape, turn=7, zoom=(0.92, 1.22), shift=0.06)
    marks = []
    if case.label == "pneumonia":
        for opacity in _opacities(half, thorax, patient, own):
            visible = opacity * lungs
            shadows += visible
            mask = np.where(_enlarged(visible, shape) > 0.045, np.uint8(255), np.uint8(0))
            marks.append(Mark("opacity", place.mask(mask)))
    image = _enlarged(shadows, shape)
    image += _enlarged(lungs, shape) * _markings(shape, thorax, own)
    image = place.image(image + _bones(shape, thorax, own))
    return Frame(
        pixels=_exposed(image, case, own),
        grey_step=1 / 255,
        spacing_mm=360.0 / case.size,
        marks=tuple(mark for mark in marks if mark.mask.any()),
    )


def _enlarged(layer: Array, shape: tuple[int, int]) -> Array:
    return cv2.resize(layer, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _plan_thorax(view: str, patient: np.random.Generator, own: np.random.Generator) -> _Thorax:
    # Projection from the front (AP) magnifies the heart.
    enlarged = 1.15 if view == "AP" else 1.0
    return _Thorax(
        middle=0.5 + own.uniform(-0.035, 0.035),
        apex=patient.uniform(0.07, 0.15) + own.uniform(-0.03, 0.03),
        base=patient.uniform(0.70, 0.86) + own.uniform(-0.03, 0.03),
        lung_half_width=patient.uniform(0.135, 0.185),
        lung_offset=patient.uniform(0.20, 0.235),
        heart_half_width=patient.uniform(0.11, 0.16) * enlarged,
        rib_pitch=patient.uniform(0.068, 0.09),
        tilt=own.uniform(-3.5, 3.5),
    )


def _fill(
    layer: Array, centre: tuple[float, float], axes: tuple[float, float], turn: float, value: float
) -> None:
    """Fill an ellipse given in shares of the image's width and height."""
    height, width = layer.shape
    unit = 2**_SHIFT
    point = (round(centre[0] * width * unit), round(centre[1] * height * unit))
    half = (max(1, round(axes[0] * width * unit)), max(1, round(axes[1] * height * unit)))
    cv2.ellipse(layer, point, half, turn, 0, 360, value, -1, cv2.LINE_8, _SHIFT)


def _lung_mask(shape: tuple[int, int], thorax: _Thorax) -> Array:
    """Both lungs, (H, W) float32, 1 inside: ellipses cut off by the domes of the diaphragm."""
    lungs = np.zeros(shape, np.float32)
    middle_y = 0.5 * (thorax.apex + thorax.base) + 0.06
    half_height = 0.5 * (thorax.base - thorax.apex) + 0.06
    for side in (-1.0, 1.0):
        centre = thorax.middle + side * thorax.lung_offset
        axes = (thorax.lung_half_width, half_height)
        _fill(lungs, (centre, middle_y), axes, -side * 5 + thorax.tilt, 1.0)
    for side in (-1.0, 1.0):
        # The right dome (left in the image) stands a little higher, over the liver.
        dome = (
            thorax.middle + side * thorax.lung_offset,
            thorax.base + (0.15 if side > 0 else 0.13),
        )
        _fill(lungs, dome, (0.24, 0.17), 0, 0.0)
    return lungs


def _soft_tissue(shape: tuple[int, int], thorax: _Thorax, own: np.random.Generator) -> Array:
    """The trunk with shoulders against air, mediastinum and abdomen, (H, W) float32."""
    image = np.zeros(shape, np.float32)
    _fill(image, (thorax.middle, 0.75), (own.uniform(0.40, 0.50), 0.72), thorax.tilt, 0.5)
    _fill(image, (thorax.middle, 0.95), (0.56, own.uniform(0.55, 0.75)), 0, 0.5)
    _fill(image, (thorax.middle, 0.02), (0.12, 0.22), 0, 0.5)
    _fill(image, (thorax.middle, 1.12), (0.45, 1.12 - thorax.base), 0, own.uniform(0.56, 0.66))
    mediastinum = np.zeros(shape, np.float32)
    _fill(mediastinum, (thorax.middle, 0.45), (own.uniform(0.055, 0.08), 0.55), thorax.tilt, 0.16)
    image += mediastinum
    for side in (-1.0, 1.0):
        breast = np.zeros(shape, np.float32)
        place = (thorax.middle + side * own.uniform(0.2, 0.27), own.uniform(0.58, 0.75))
        _fill(breast, place, (0.15, own.uniform(0.10, 0.17)), 0, own.uniform(0, 0.09))
        image += breast
    return softened(image, 0.02 * shape[1])


def _markings(shape: tuple[int, int], thorax: _Thorax, own: np.random.Generator) -> Array:
    """Hila and the vessels that radiate from them, (H, W) float32."""
    height, width = shape
    layer = np.zeros(shape, np.uint8)
    for side in (-1.0, 1.0):
        x0, y0 = thorax.middle + side * 0.075, thorax.apex + 0.30 + own.uniform(-0.02, 0.02)
        hilum = (round(x0 * width), round(y0 * height))
        cv2.ellipse(layer, hilum, (width // 40, height // 18), side * 20, 0, 360, 130, -1)
        for _ in range(own.integers(9, 15)):
            heading, place, thick = (
                own.uniform(-1.2, 1.4),
                hilum,
                own.uniform(1.5, 4.0) * width / 256,
            )
            for _ in range(4):
                heading += own.uniform(-0.25, 0.25)
                step = own.uniform(0.03, 0.07) * width
                end = (
                    round(place[0] + side * step * math.cos(heading)),
                    round(place[1] + step * math.sin(heading)),
                )
                cv2.line(layer, place, end, 110, max(1, round(thick)), cv2.LINE_AA)
                place, thick = end, thick * 0.7
    soft = cv2.GaussianBlur(layer, (0, 0), 0.0055 * width).astype(np.float32)
    return soft * np.float32(own.uniform(0.16, 0.34) / 255)


def _opacities(
    shape: tuple[int, int],
    thorax: _Thorax,
    patient: np.random.Generator,
    own: np.random.Generator,
) -> list[Array]:
    """One to three patchy consolidations of a patient, (H, W) float32 attenuation each."""
    opacities = []
    for _ in range(patient.integers(1, 4)):
        side = float(patient.choice([-1.0, 1.0]))
        centre = (
            thorax.middle + side * (thorax.lung_offset + patient.uniform(-0.07, 0.07)),
            thorax.apex + (thorax.base - thorax.apex) * patient.uniform(0.3, 0.92),
        )
        axes = (patient.uniform(0.05, 0.11), patient.uniform(0.05, 0.13))
        blob = np.zeros(shape, np.float32)
        moved = (centre[0] + own.uniform(-0.01, 0.01), centre[1] + own.uniform(-0.02, 0.02))
        _fill(blob, moved, axes, patient.uniform(0, 180), 1.0)
        blob = softened(blob, 0.022 * shape[1])
        patches = np.clip(0.75 + 0.45 * smooth_field(own, shape, (14, 14)), 0, 1.4)
        opacities.append(patient.uniform(0.09, 0.24) * blob * patches)
    return opacities


def _heart(shape: tuple[int, int], thorax: _Thorax) -> Array:
    """Heart shadow and aortic knob, (H, W) float32, 1 inside."""
    heart = np.zeros(shape, np.float32)
    place = (thorax.middle + 0.045, thorax.base - 0.12)
    _fill(heart, place, (thorax.heart_half_width, 0.16), 32 + thorax.tilt, 1.0)
    _fill(heart, (thorax.middle + 0.055, thorax.apex + 0.2), (0.04, 0.05), 0, 0.8)
    return softened(heart, 0.009 * shape[1])


def _bones(shape: tuple[int, int], thorax: _Thorax, own: np.random.Generator) -> Array:
    """Ribs in front and behind, clavicles and spine, (H, W) float32 attenuation."""
    height, width = shape
    layer = np.zeros(shape, np.uint8)
    back = np.zeros(shape, np.uint8)
    thick = max(2, round(0.021 * width))
    for rib in range(9):
        y = thorax.apex + 0.02 + rib * thorax.rib_pitch
        spread = 0.13 + 0.16 * min(1.0, (rib + 1.5) / 5)
        for side in (-1.0, 1.0):
            point = (round(thorax.middle * width), round((y + 0.10) * height))
            half = (round(spread * 1.16 * width), round(0.115 * height))
            first, last = (188, 262) if side < 0 else (278, 352)
            cv2.ellipse(back, point, half, thorax.tilt, first, last, 200, thick)
            front = (round((thorax.middle + side * 0.07) * width), round((y + 0.02) * height))
            reach = (round(spread * width), round(0.17 * height))
            first, last = (100, 165) if side < 0 else (15, 80)
            cv2.ellipse(layer, front, reach, thorax.tilt, first, last, 120, thick)
    for side in (-1.0, 1.0):
        inner = (
            round((thorax.middle + side * 0.03) * width),
            round((thorax.apex + 0.085) * height),
        )
        outer = (
            round((thorax.middle + side * 0.34) * width),
            round((thorax.apex + own.uniform(0.0, 0.05)) * height),
        )
        cv2.line(layer, inner, outer, 230, round(1.2 * thick), cv2.LINE_AA)
    pitch = round(0.052 * height)
    x = round(thorax.middle * width)
    reach_x = round(0.03 * width)
    for y in range(0, height, max(4, pitch)):
        cv2.rectangle(back, (x - reach_x, y), (x + reach_x, y + round(0.7 * pitch)), 130, -1)
    strength = own.uniform(0.10, 0.20) / 255
    bones = cv2.GaussianBlur(cv2.add(layer // 2, back // 2), (0, 0), 0.0045 * width)
    # Below the diaphragm the abdomen hides most of them.
    row_H1 = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    fade_H1 = np.clip(1 - (row_H1 - thorax.base) / 0.12, 0.25, 1) * (1.7 * strength)
    faded: Array = bones * fade_H1
    return faded


def _exposed(image: Array, case: Case, own: np.random.Generator) -> Array:
    """Exposure, latitude, scatter and quantum noise: (H, W) float32, 0 to 1."""
    shape = (image.shape[0], image.shape[1])
    shadows: Array = cv2.GaussianBlur(image, (0, 0), own.uniform(0.4, 0.9) * shape[1] / 256)
    contrast = own.uniform(0.85, 1.25) * case.site.contrast
    level = own.uniform(0.36, 0.60) + 0.06 * case.site.gain
    noise: Array = own.uniform(0.008, 0.022) * own.standard_normal(shape, dtype=np.float32)
    # The tube's heel effect and a detector that is not square to the beam: one side is darker.
    across_1W = np.linspace(-1, 1, shape[1], dtype=np.float32)[None] * own.uniform(-0.07, 0.07)
    down_H1 = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None] * own.uniform(-0.09, 0.09)
    even = level + contrast * (shadows - 0.42)
    exposed: Array = np.clip(even + noise + (across_1W + down_H1), 0.0, 1.0)
    return exposed
