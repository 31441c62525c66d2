"""Ultrasound phantoms of the liver: a sector drawn in beam coordinates, then scan-converted.

Shape suffixes: ``RB`` is (samples along a beam, beams). Echo levels are dB relative to the liver.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from workers.phantoms.frame import Case, Frame, Mark
from workers.phantoms.lesions import Beams, draw_lesions, plan_lesions
from workers.phantoms.noise import Array, fractal_field, smooth_field, speckle_db
from workers.phantoms.overlay import draw_overlay
from workers.phantoms.vessels import draw_vessels

DYNAMIC_RANGE_DB = 62.0
"""Echo levels from black to white."""
LIVER_LEVEL = 0.4
"""Where normal liver lies between black and white."""


@dataclass(frozen=True)
class Probe:
    """A convex probe and where its sector lies in the image."""

    radius_mm: float
    depth_mm: float
    half_angle: float
    height: int
    width: int
    px_per_mm: float
    centre_x: float
    top_y: float

    @property
    def left_edge(self) -> float:
        """Leftmost column of the sector."""
        reach = (self.radius_mm + self.depth_mm) * math.sin(self.half_angle)
        return self.centre_x - self.px_per_mm * reach


def draw_ultrasound(case: Case, patient: np.random.Generator, own: np.random.Generator) -> Frame:
    """Draw one B-mode image of the liver, (H, W, 3) uint8 RGB, H about 0.75 W."""
    probe = _place_probe(case.size, patient, own)
    beams = _beams(probe)
    echo_RB = _liver(beams, case, patient, own)
    draw_vessels(echo_RB, beams, own)
    lesions = plan_lesions(case.label, probe.depth_mm, patient)
    masks = draw_lesions(echo_RB, beams, lesions, own)
    _draw_wall(echo_RB, beams, own)
    _draw_shadows(echo_RB, beams, own)
    grey_RB = _log_compressed(echo_RB, beams, case, own)
    map_beam, map_sample = _scan_conversion(probe, grey_RB.shape)
    grey = cv2.remap(grey_RB, map_beam, map_sample, cv2.INTER_LINEAR)
    marks = []
    for mask_RB in masks:
        soft = cv2.remap(mask_RB, map_beam, map_sample, cv2.INTER_LINEAR)
        mask = np.where(soft > 0.5, np.uint8(255), np.uint8(0))
        if mask.any():
            marks.append(Mark(case.label, mask))
    pixels = cv2.merge([grey, grey, grey])
    margin = (probe.left_edge, probe.px_per_mm, probe.depth_mm)
    bar = draw_overlay(pixels, case.scale_bar, margin, own)
    return Frame(pixels, 1.0, 1.0 / probe.px_per_mm, tuple(marks), bar)


def _place_probe(size: int, patient: np.random.Generator, own: np.random.Generator) -> Probe:
    """A probe of a patient's examination, fitted into an image of 4 by 3."""
    radius_mm = patient.uniform(38, 66)
    half_angle = math.radians(patient.uniform(24, 38))
    depth_mm = patient.uniform(105, 150) * own.uniform(0.93, 1.07)
    height, width = round(size * 0.75), size
    tall_mm = radius_mm + depth_mm - radius_mm * math.cos(half_angle)
    wide_mm = 2 * (radius_mm + depth_mm) * math.sin(half_angle)
    scale = min(0.94 * height / tall_mm, 0.80 * width / wide_mm) * patient.uniform(0.8, 1.0)
    # The left margin has room for a scale bar.
    free_px = 0.89 * width - scale * wide_mm
    centre_x = 0.1 * width + scale * wide_mm / 2 + own.uniform(0.1, 0.9) * free_px
    top_y = own.uniform(0.02, 0.09) * height - scale * radius_mm * math.cos(half_angle)
    return Probe(radius_mm, depth_mm, half_angle, height, width, scale, centre_x, top_y)


def _beams(probe: Probe) -> Beams:
    """Positions of all samples in mm: lateral, and depth below the middle of the probe's face."""
    samples, beams = round(probe.height * 0.95), round(probe.width * 0.45)
    range_R1 = np.linspace(0, probe.depth_mm, samples, dtype=np.float32)[:, None]
    angle_1B = np.linspace(-probe.half_angle, probe.half_angle, beams, dtype=np.float32)[None]
    radius_R1 = range_R1 + probe.radius_mm
    return Beams(
        x_RB=radius_R1 * np.sin(angle_1B),
        y_RB=radius_R1 * np.cos(angle_1B) - probe.radius_mm,
        range_R1=range_R1,
        angle_1B=angle_1B,
        radius_mm=probe.radius_mm,
    )


def _liver(
    beams: Beams, case: Case, patient: np.random.Generator, own: np.random.Generator
) -> Array:
    """Liver texture up to the diaphragm, and what lies behind it."""
    shape = beams.x_RB.shape
    unevenness_db = patient.uniform(0.6, 2.2)
    echo_RB = unevenness_db * fractal_field(own, shape, 3, 3)
    depth_mm = float(beams.range_R1[-1, 0])
    border_mm = depth_mm * own.uniform(0.82, 1.05)
    tilt, bend = own.uniform(-0.35, 0.35), own.uniform(0.001, 0.006)
    offset_mm = own.uniform(-25, 25)
    lateral_RB = beams.x_RB - offset_mm
    behind_RB = beams.y_RB - (border_mm + tilt * lateral_RB - bend * lateral_RB * lateral_RB)
    line_RB = np.exp(-((behind_RB / 1.8) ** 2))
    echo_RB += own.uniform(8, 16) * line_RB
    echo_RB -= own.uniform(5, 14) * np.clip(behind_RB / 4, 0, 1)
    return echo_RB.astype(np.float32)


def _draw_wall(echo_RB: Array, beams: Beams, own: np.random.Generator) -> None:
    """Skin, fat, muscle and the liver's capsule: bright bands above the liver."""
    samples, count = echo_RB.shape
    thickness_mm = own.uniform(9, 20)
    wave_1B = smooth_field(own, (1, count), (1, 4)) * 1.2
    depth_RB = beams.range_R1 + wave_1B
    bands_RB = smooth_field(own, (samples, count), (int(own.integers(50, 80)), 3)) * 5
    inside_RB = np.clip((thickness_mm - depth_RB) / 1.5, 0, 1)
    echo_RB += inside_RB * (bands_RB + own.uniform(0, 6) - echo_RB)
    echo_RB += own.uniform(5, 10) * np.exp(-(((depth_RB - thickness_mm) / 1.0) ** 2))
    echo_RB += 12 * np.exp(-beams.range_R1 / 2.0)


def _draw_shadows(echo_RB: Array, beams: Beams, own: np.random.Generator) -> None:
    """Acoustic shadows of ribs or bowel gas at the sides of some images."""
    if own.random() < 0.4:
        edge = float(beams.angle_1B[0, -1])
        middle = float(own.choice([-1.0, 1.0])) * edge * own.uniform(0.7, 1.05)
        half_width = edge * own.uniform(0.06, 0.22)
        shade_1B = np.clip(1.6 - np.abs(beams.angle_1B - middle) / half_width, 0, 1)
        start_R1 = np.clip((beams.range_R1 - own.uniform(8, 30)) / 6, 0, 1)
        echo_RB -= own.uniform(8, 20) * shade_1B * start_R1


def _log_compressed(echo_RB: Array, beams: Beams, case: Case, own: np.random.Generator) -> Array:
    """Speckle, imperfect time-gain compensation, gain and log compression: (R, B) uint8."""
    shape = (echo_RB.shape[0], echo_RB.shape[1])
    cell = (own.uniform(0.55, 0.75) * shape[0] / 182, own.uniform(0.8, 1.15) * shape[1] / 115)
    speckle_RB = speckle_db(own, shape, cell, looks=own.uniform(0.35, 0.7))
    slope_db = own.uniform(-10, 8)
    depth_R1 = beams.range_R1 / beams.range_R1[-1, 0]
    gain_R1 = slope_db * (depth_R1 - 0.4) + 1.2 * smooth_field(own, (shape[0], 1), (7, 1))
    gain_db = own.uniform(-6, 6) + 5.0 * case.site.gain
    # A probe that sits better on one side than on the other.
    contact_1B = own.uniform(-5, 5) * beams.angle_1B / beams.angle_1B[0, -1]
    level_RB = (echo_RB + speckle_RB + (gain_R1 + gain_db) + contact_1B) * (
        case.site.contrast * own.uniform(0.9, 1.1)
    )
    grey_RB: Array = (LIVER_LEVEL + level_RB / DYNAMIC_RANGE_DB) * 255
    return np.clip(grey_RB, 2, 255).astype(np.uint8)


def _scan_conversion(probe: Probe, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Where each image pixel lies in beam coordinates: columns (beams) and rows (samples)."""
    x_1W = (np.arange(probe.width, dtype=np.float32) - probe.centre_x) / probe.px_per_mm
    y_H1 = ((np.arange(probe.height, dtype=np.float32) - probe.top_y) / probe.px_per_mm)[:, None]
    x_HW = np.broadcast_to(x_1W[None], (probe.height, probe.width)).astype(np.float32)
    y_HW = np.broadcast_to(y_H1, (probe.height, probe.width)).astype(np.float32)
    radius_HW, angle_HW = cv2.cartToPolar(y_HW, x_HW)
    angle_HW = np.where(angle_HW > math.pi, angle_HW - 2 * math.pi, angle_HW)
    beam_HW = (angle_HW + probe.half_angle) * ((shape[1] - 1) / (2 * probe.half_angle))
    sample_HW = (radius_HW - probe.radius_mm) * ((shape[0] - 1) / probe.depth_mm)
    return beam_HW, sample_HW
