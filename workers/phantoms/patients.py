"""The invented patients of a corpus: who has which images, and what they have.

Indices fall into blocks of 32; a block divides its indices among patients on its own, so any
image's patient is known without looking at other blocks, and a larger corpus begins with the
smaller one of the same seed.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from workers.phantoms.noise import generator

BLOCK = 32
"""Indices divided among patients together."""


class Role(StrEnum):
    """What a file of the corpus is."""

    ORIGINAL = "original"
    NEAR_DUPLICATE = "near"
    """Shows the patient's first image with tiny changes."""
    EXACT_DUPLICATE = "exact"
    """Holds the very bytes of the patient's first image."""
    BROKEN = "broken"
    FLAWED = "flawed"
    """Readable, but small, dark, blurred or blank."""


@dataclass(frozen=True)
class Patient:
    """One invented person; numbers stand for names."""

    number: int
    modality: str
    """us, ct or xray."""
    label: str
    sex: str
    age: int
    site: int
    study_date: datetime.date

    @property
    def id(self) -> str:
        """The patient id, e.g. PT000123."""
        return f"PT{self.number:06d}"


@dataclass(frozen=True)
class Entry:
    """The place of an index in the corpus."""

    index: int
    patient: Patient
    role: Role
    source: int
    """The index whose picture it shows: its own, unless it is a duplicate."""
    traits: tuple[float, float, float]
    """Three uniform numbers of its own, for what the caller has to decide."""
    source_traits: tuple[float, float, float]
    """Those of the index whose picture it shows."""


@dataclass(frozen=True)
class Prior:
    """How often a diagnosis is, and whom it meets."""

    share: float
    female: float
    age: float
    age_deviation: float
    zero_age: float = 0.0
    """Share of patients recorded with age 0, a labelling mistake of the real archive."""


PRIORS: Mapping[str, Mapping[str, Prior]] = {
    "us": {
        "normal": Prior(0.40, 0.50, 54, 18),
        "cyst": Prior(0.20, 0.52, 58, 17),
        "hcc": Prior(0.12, 0.30, 67, 10),
        "hemangioma": Prior(0.18, 0.64, 49, 14),
        "meta": Prior(0.10, 0.50, 63, 12, zero_age=0.05),
    },
    "ct": {
        "normal": Prior(0.50, 0.50, 56, 15),
        "benign": Prior(0.25, 0.50, 57, 14),
        "malignant": Prior(0.25, 0.42, 65, 10),
    },
    "xray": {
        "normal": Prior(0.50, 0.50, 46, 21),
        "pneumonia": Prior(0.50, 0.47, 51, 22),
    },
}
"""Diagnoses by modality: HCC meets older men, hemangioma younger women, metastases are rarest."""

_SIZES = (1, 2, 3, 4, 5, 6)
_SIZE_SHARES = (0.14, 0.22, 0.24, 0.18, 0.13, 0.09)
_FIRST_DAY = datetime.date(2016, 1, 1)
_DAYS = 3650
_BLOCK_STREAM, _PATIENT_STREAM = 0, 1


def entry(
    seed: int,
    index: int,
    modalities: Mapping[str, float],
    sites: int,
    role_shares: Mapping[Role, float],
) -> Entry:
    """The place of ``index``: its patient, its role, and the picture it shows.

    Roles other than original fall only on a patient's second and later images, so that the first
    is always there to be repeated; their shares hold for the corpus as a whole.
    """
    block, position = divmod(index, BLOCK)
    rng = generator(seed, _BLOCK_STREAM, block)
    sizes = rng.choice(_SIZES, size=BLOCK, p=_SIZE_SHARES)
    draws = rng.random((BLOCK, 4)).tolist()
    ends = np.minimum(np.cumsum(sizes), BLOCK)
    ordinal = int(np.searchsorted(ends, position, side="right"))
    first = int(ends[ordinal - 1]) if ordinal else 0
    patients = int(np.searchsorted(ends, BLOCK)) + 1
    patient = _patient(seed, block * BLOCK + ordinal, modalities, sites)
    role = Role.ORIGINAL
    if position != first:
        later_share = (BLOCK - patients) / BLOCK
        role = _role(draws[position][3] * later_share, role_shares)
    source = first if role in (Role.NEAR_DUPLICATE, Role.EXACT_DUPLICATE) else position
    return Entry(
        index=index,
        patient=patient,
        role=role,
        source=block * BLOCK + source,
        traits=(draws[position][0], draws[position][1], draws[position][2]),
        source_traits=(draws[source][0], draws[source][1], draws[source][2]),
    )


def _role(draw: float, shares: Mapping[Role, float]) -> Role:
    for role, share in shares.items():
        draw -= share
        if draw < 0:
            return role
    return Role.ORIGINAL


def _patient(seed: int, number: int, modalities: Mapping[str, float], sites: int) -> Patient:
    rng = generator(seed, _PATIENT_STREAM, number)
    weights = np.array(list(modalities.values()), dtype=np.float64)
    modality = str(rng.choice(list(modalities), p=weights / weights.sum()))
    priors = PRIORS[modality]
    label = str(rng.choice(list(priors), p=[prior.share for prior in priors.values()]))
    prior = priors[label]
    age = int(np.clip(round(rng.normal(prior.age, prior.age_deviation)), 18, 95))
    if rng.random() < prior.zero_age:
        age = 0
    return Patient(
        number=number,
        modality=modality,
        label=label,
        sex="F" if rng.random() < prior.female else "M",
        age=age,
        site=int(rng.integers(sites)),
        study_date=_FIRST_DAY + datetime.timedelta(days=int(rng.integers(_DAYS))),
    )
