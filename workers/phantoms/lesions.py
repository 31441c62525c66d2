"""Focal liver lesions in beam coordinates, with the sonographic signs of four kinds.

* cyst: free of echoes, sharp wall, posterior enhancement, edge shadows;
* hcc (hepatocellular carcinoma): hypoechoic or mixed, thin halo, mosaic of nodules inside;
* hemangioma: bright, homogeneous, sharply bordered, lobulated;
* meta (metastases): several alike, dark rim around a brighter middle ("target", "bull's eye").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from workers.phantoms.noise import Array, smooth_field


@dataclass(frozen=True)
class Beams:
    """The sampling grid of a sector: positions in mm, angles in radians."""

    x_RB: Array
    y_RB: Array
    range_R1: Array
    angle_1B: Array
    radius_mm: float

    def position(self, range_mm: float, angle: float) -> tuple[float, float]:
        """Lateral position and depth of a point on a beam, mm."""
        radius = self.radius_mm + range_mm
        return radius * math.sin(angle), radius * math.cos(angle) - self.radius_mm


@dataclass(frozen=True)
class Lesion:
    """One lesion of a patient; every image of the patient shows it a little differently."""

    kind: str
    range_mm: float
    angle_share: float
    """Angle as a share of the sector's half angle, -1 to 1."""
    radius_mm: float
    aspect: float
    tilt: float
    outline: tuple[float, float, float, float]
    """Amplitudes of the second and third harmonic of the outline, and their phases."""
    strength: float
    """0 for a faint look, 1 for a textbook one."""


_RADIUS_MM = {
    "cyst": (6.5, 15.0),
    "hcc": (13.0, 26.0),
    "hemangioma": (10.0, 20.0),
    "meta": (8.0, 14.0),
}


def plan_lesions(label: str, depth_mm: float, patient: np.random.Generator) -> tuple[Lesion, ...]:
    """The lesions of a patient: none for a normal liver, several for metastases."""
    if label not in _RADIUS_MM:
        return ()
    count = int(patient.integers(2, 5)) if label == "meta" else 1 + int(patient.random() < 0.12)
    first = _plan_lesion(label, depth_mm, patient)
    lesions = [first]
    for _ in range(40):
        if len(lesions) == count:
            break
        # Metastases of one patient look alike: only place, size and outline differ.
        other = replace(_plan_lesion(label, depth_mm, patient), strength=first.strength)
        if all(_apart(other, lesion) for lesion in lesions):
            lesions.append(other)
    return tuple(lesions)


def _plan_lesion(label: str, depth_mm: float, patient: np.random.Generator) -> Lesion:
    low, high = _RADIUS_MM[label]
    wobble = 0.12 if label in ("hcc", "meta") else 0.05
    return Lesion(
        kind=label,
        range_mm=depth_mm * patient.uniform(0.30, 0.72),
        angle_share=patient.uniform(-0.62, 0.62),
        radius_mm=patient.uniform(low, high),
        aspect=patient.uniform(0.75, 1.0),
        tilt=patient.uniform(0, math.pi),
        outline=(
            patient.uniform(0, wobble),
            patient.uniform(0, wobble),
            patient.uniform(0, 2 * math.pi),
            patient.uniform(0, 2 * math.pi),
        ),
        strength=patient.uniform(0.35, 1.0),
    )


def _apart(one: Lesion, other: Lesion) -> bool:
    lateral_mm = (one.angle_share - other.angle_share) * 0.55 * (50 + one.range_mm)
    gap_mm = math.hypot(lateral_mm, one.range_mm - other.range_mm)
    return gap_mm > 1.25 * (one.radius_mm + other.radius_mm)


def draw_lesions(
    echo_RB: Array, beams: Beams, lesions: Sequence[Lesion], own: np.random.Generator
) -> list[Array]:
    """Draw lesions into the echo levels; returns their masks (R, B), float32, 0 to 1."""
    shift_mm, turn = own.uniform(-6, 6), own.uniform(-0.12, 0.12)
    masks = []
    for lesion in lesions:
        seen = replace(
            lesion,
            range_mm=lesion.range_mm + shift_mm,
            angle_share=lesion.angle_share + turn,
            radius_mm=lesion.radius_mm * own.uniform(0.85, 1.1),
            tilt=lesion.tilt + own.uniform(-0.3, 0.3),
        )
        depth_RB, share_RB = _distance_inside(beams, seen)
        masks.append(np.clip(depth_RB / 0.6 + 0.5, 0, 1))
        # A growing lesion pushes the vessels aside.
        echo_RB -= 0.85 * masks[-1] * echo_RB
        _LOOKS[lesion.kind](echo_RB, depth_RB, share_RB, seen, own)
        _draw_posterior(echo_RB, beams, masks[-1], seen)
    return masks


def _distance_inside(beams: Beams, lesion: Lesion) -> tuple[Array, Array]:
    """How deep each sample lies inside the outline: about in mm, and as a share (middle: 1)."""
    angle = lesion.angle_share * float(beams.angle_1B[0, -1])
    x0, y0 = beams.position(lesion.range_mm, angle)
    dx_RB, dy_RB = beams.x_RB - x0, beams.y_RB - y0
    cos, sin = math.cos(lesion.tilt), math.sin(lesion.tilt)
    along_RB = (dx_RB * cos + dy_RB * sin) / lesion.radius_mm
    across_RB = (dy_RB * cos - dx_RB * sin) / lesion.radius_mm * lesion.aspect
    share_RB, phi_RB = cv2.cartToPolar(along_RB, across_RB)
    second, third, phase2, phase3 = lesion.outline
    share_RB /= 1 + second * np.cos(2 * phi_RB + phase2) + third * np.cos(3 * phi_RB + phase3)
    inside_RB = 1 - share_RB
    return inside_RB * lesion.radius_mm * lesion.aspect, inside_RB


def _draw_cyst(
    echo_RB: Array, depth_RB: Array, share_RB: Array, lesion: Lesion, own: np.random.Generator
) -> None:
    inside_RB = np.clip(depth_RB / 0.7 + 0.5, 0, 1)
    echo_RB += (2 + 3 * lesion.strength) * np.exp(-(((depth_RB + 0.7) / 0.7) ** 2))
    echo_RB -= inside_RB * (echo_RB + 16 + 14 * lesion.strength)


def _draw_hcc(
    echo_RB: Array, depth_RB: Array, share_RB: Array, lesion: Lesion, own: np.random.Generator
) -> None:
    inside_RB = np.clip(depth_RB / 1.6 + 0.5, 0, 1)
    shape = (echo_RB.shape[0], echo_RB.shape[1])
    cells = (shape[0] // 9, shape[1] // 8)
    mosaic_RB = np.clip(smooth_field(own, shape, cells) * 2, -1, 1)
    level_db = own.uniform(-6, -2) - 4 * lesion.strength
    echo_RB += inside_RB * (level_db + (1.5 + 2.5 * lesion.strength) * mosaic_RB)
    halo_RB = np.exp(-(((depth_RB - 0.9) / 1.0) ** 2))
    echo_RB -= (2 + 6 * lesion.strength) * halo_RB


def _draw_hemangioma(
    echo_RB: Array, depth_RB: Array, share_RB: Array, lesion: Lesion, own: np.random.Generator
) -> None:
    inside_RB = np.clip(depth_RB / 0.9 + 0.5, 0, 1)
    echo_RB += inside_RB * (4.0 + 7.0 * lesion.strength - 0.6 * echo_RB)


def _draw_meta(
    echo_RB: Array, depth_RB: Array, share_RB: Array, lesion: Lesion, own: np.random.Generator
) -> None:
    inside_RB = np.clip(depth_RB / 1.2 + 0.5, 0, 1)
    rim_RB = np.exp(-(((share_RB - 0.2) / 0.17) ** 2)) * inside_RB
    middle_RB = np.clip((share_RB - 0.42) / 0.12, 0, 1)
    echo_RB -= (6 + 9 * lesion.strength) * rim_RB
    echo_RB += (1 + 4.5 * lesion.strength) * middle_RB
    if lesion.strength > 0.8:
        echo_RB -= 9 * np.clip((share_RB - 0.78) / 0.08, 0, 1)


_LOOKS = {
    "cyst": _draw_cyst,
    "hcc": _draw_hcc,
    "hemangioma": _draw_hemangioma,
    "meta": _draw_meta,
}

_POSTERIOR_DB = {"cyst": 6.5, "hcc": 1.2, "hemangioma": 0.6, "meta": -1.5}


def _draw_posterior(echo_RB: Array, beams: Beams, mask_RB: Array, lesion: Lesion) -> None:
    """Brighter or darker echoes behind a lesion, as its attenuation differs from the liver's."""
    change_db = _POSTERIOR_DB[lesion.kind] * (0.5 + 0.5 * lesion.strength)
    behind_RB = np.maximum.accumulate(mask_RB, axis=0) - mask_RB
    fade_R1 = np.exp(-np.maximum(beams.range_R1 - lesion.range_mm, 0) / 45)
    width = max(1.0, 0.012 * mask_RB.shape[1])
    echo_RB += change_db * fade_R1 * cv2.GaussianBlur(behind_RB, (0, 0), width)
    if lesion.kind == "cyst":
        reach_1B = mask_RB.max(axis=0, keepdims=True)
        edge_1B = np.abs(np.diff(reach_1B, axis=1, prepend=reach_1B[:, :1]))
        edge_1B = cv2.GaussianBlur(edge_1B, (0, 0), width)
        below_R1 = np.clip((beams.range_R1 - lesion.range_mm) / 4, 0, 1)
        echo_RB -= 4.0 * edge_1B * below_R1 * fade_R1
