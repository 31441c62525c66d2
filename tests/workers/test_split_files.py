"""Splits of real files checked by what the files say: names, bytes, and imagehash's own hashes.

Nothing of the code under test decides here what a leak is.
"""

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image

from tests.workers.splits import row, split

PARTS = ("train", "val", "test")
Places = dict[str, dict[str, Any]]


def hash_file(file: Path) -> str:
    with Image.open(file) as image:
        return str(imagehash.phash(image))


def distances(hashes: list[str]) -> np.ndarray:
    """(N, N) Hamming distances, from the bits that imagehash unpacks."""
    bits = np.array([imagehash.hex_to_hash(one).hash.ravel() for one in hashes], np.float32)
    ones = bits.sum(axis=1)
    return (ones[:, None] + ones[None, :] - 2 * bits @ bits.T).astype(np.int64)


def test_the_naive_split_of_real_ct_slices_leaks_and_the_made_one_does_not(
    shared_data: Path,
) -> None:
    files = sorted((shared_data / "ct-iqothnccd").glob("*/*.jpg"))
    contents = {file.read_bytes(): file for file in files}
    files = sorted(contents.values())
    hashes = [hash_file(file) for file in files]
    rows = [
        row(0, image_id=str(file.relative_to(shared_data)), label=file.parent.name, phash=value)
        for file, value in zip(files, hashes, strict=True)
    ]
    near = distances(hashes) <= 2
    np.fill_diagonal(near, val=False)
    names = [one["image_id"] for one in rows]

    def crossing(places: Places, first: str, second: str) -> int:
        inside = {
            part: np.array([places[name]["part"] == part for name in names]) for part in PARTS
        }
        return int((near[:, inside[first]].any(axis=1) & inside[second]).sum())

    naive, result = split(rows, mode="random", folds=5)
    counted = Counter(
        (one["first_part"], one["second_part"], one["kind"])
        for one in result.tables["leaks"].to_pylist()
    )
    expected = {
        (*parts, "near_duplicate"): crossing(naive, *parts)
        for parts in itertools.combinations(PARTS, 2)
    }
    assert counted == {key: value for key, value in expected.items() if value}
    assert counted["train", "test", "near_duplicate"] > 0
    made, _ = split(rows, folds=5, max_group_share=0.2)
    for parts in itertools.combinations(PARTS, 2):
        assert crossing(made, *parts) == 0
    fold = np.array([-1 if made[name]["fold"] is None else made[name]["fold"] for name in names])
    i, j = np.nonzero(near)
    assert ((fold[i] == fold[j]) | (fold[i] < 0) | (fold[j] < 0)).all()


@pytest.mark.slow
def test_no_child_and_no_lookalike_of_real_x_rays_stands_on_two_sides(shared_data: Path) -> None:
    contents: dict[bytes, list[Path]] = {}
    for file in sorted((shared_data / "cxr-kermany").glob("*/*/*.jp*g")):
        contents.setdefault(file.read_bytes(), []).append(file)
    rows, children = [], []
    for same in contents.values():
        found = [re.match(r"person(\d+)_", file.name) for file in same]
        children.append(sorted({match[1] for match in found if match}))
        rows.append(
            row(
                0,
                image_id=same[0].name + same[0].parent.name,
                label=same[0].parent.name,
                splits=sorted({file.parent.parent.name for file in same}),
                copies=len(same),
                phash=hash_file(same[0]),
                patient_ids=[f"pseudonym-{child}" for child in children[-1]],
            )
        )
    del contents
    names = [one["image_id"] for one in rows]
    i, j = np.nonzero(np.triu(distances([one["phash"] for one in rows]) <= 2, 1))

    def leaking(places: Places, field: str) -> tuple[int, int]:
        side = [places[name][field] if name in places else None for name in names]
        sides_of: dict[str, set[Any]] = {}
        for where, some in zip(side, children, strict=True):
            for child in some:
                sides_of.setdefault(child, set()).update({where} - {None})
        pairs = [
            (a, b)
            for a, b in zip(i.tolist(), j.tolist(), strict=True)
            if None not in (side[a], side[b]) and side[a] != side[b]
        ]
        return sum(len(some) > 1 for some in sides_of.values()), len(pairs)

    own = {one["image_id"]: {"part": one["splits"][0]} for one in rows}
    assert leaking(own, "part") == (170, 1)
    assert sum(one["copies"] - 1 for one in rows) == 32
    given_places, result = split(rows, mode="given", folds=5)
    assert result.facts["patients in train and test as given"] == 170
    named = result.tables["leaks"].to_pylist()
    assert len({one["patient_id"] for one in named if one["kind"] == "patient"}) == 170
    assert sum(one["kind"] == "near_duplicate" for one in named) == 1
    made, _ = split(rows, folds=5)
    for places in (given_places, made):
        assert leaking(places, "part") == leaking(places, "fold") == (0, 0)
    naive, _ = split(rows, mode="random")
    assert min(leaking(naive, "part")) > 0
