import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest

from workers.phantoms.patients import BLOCK, Entry, Role, entry

SHARES = {
    Role.NEAR_DUPLICATE: 0.1,
    Role.EXACT_DUPLICATE: 0.05,
    Role.BROKEN: 0.1,
    Role.FLAWED: 0.05,
}
COUNT = 100 * BLOCK


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return [entry(4, index, {"us": 1.0}, 3, SHARES) for index in range(COUNT)]


def test_patients_own_runs_of_indices(entries: list[Entry]) -> None:
    sizes = Counter(one.patient.number for one in entries)
    changes = sum(
        before.patient.number != after.patient.number
        for before, after in itertools.pairwise(entries)
    )
    assert changes == len(sizes) - 1
    assert max(sizes.values()) <= 6
    assert 2.5 < np.mean(list(sizes.values())) < 3.5
    ids = {one.patient.id: one.patient for one in entries}
    assert len(ids) == len(sizes)
    assert all(ids[one.patient.id] == one.patient for one in entries)


def test_roles_have_their_shares(entries: list[Entry]) -> None:
    counts = Counter(one.role for one in entries)
    for role, share in SHARES.items():
        assert counts[role] / COUNT == pytest.approx(share, abs=0.018)


def test_duplicates_show_the_first_image_of_their_patient(entries: list[Entry]) -> None:
    first: dict[int, int] = {}
    for one in entries:
        first.setdefault(one.patient.number, one.index)
    for one in entries:
        if one.role in (Role.NEAR_DUPLICATE, Role.EXACT_DUPLICATE):
            assert one.source == first[one.patient.number] != one.index
            assert entries[one.source].role is Role.ORIGINAL
            assert one.source_traits == entries[one.source].traits
        else:
            assert one.source == one.index


def test_priors_follow_the_archive(entries: list[Entry]) -> None:
    patients = {one.patient.number: one.patient for one in entries}.values()
    by_label = defaultdict(list)
    for patient in patients:
        by_label[patient.label].append(patient)
    female = {
        label: np.mean([one.sex == "F" for one in group]) for label, group in by_label.items()
    }
    age = {label: np.median([one.age for one in group]) for label, group in by_label.items()}
    assert female["hcc"] < 0.42
    assert female["hemangioma"] > 0.55
    assert age["hcc"] > age["cyst"] > age["hemangioma"]
    lesions = [label for label in by_label if label != "normal"]
    assert min(lesions, key=lambda label: len(by_label[label])) == "meta"
    zeros = {patient.label for patient in patients if patient.age == 0}
    assert zeros == {"meta"}
    assert all(18 <= patient.age <= 95 for patient in patients if patient.age)


def test_modalities_have_their_weights() -> None:
    weights = {"us": 3.0, "ct": 1.0}
    seen = {
        one.patient.number: one.patient.modality
        for one in (entry(9, index, weights, 1, {}) for index in range(0, 40 * BLOCK, 4))
    }
    counts = Counter(seen.values())
    assert set(counts) == {"us", "ct"}
    assert counts["us"] / sum(counts.values()) == pytest.approx(0.75, abs=0.08)
