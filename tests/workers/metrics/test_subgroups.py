"""Subgroups of images."""

import numpy as np
import pyarrow as pa

from workers.metrics.subgroups import subgroups


def test_every_image_is_in_one_subgroup_of_each_column() -> None:
    rows = pa.table(
        {
            "sex": ["F", "M", None, "F", ""],
            "age": pa.array([17.9, 18, 40, None, 75], pa.float32()),
            "site": ["A", "A", "B", None, "A"],
        }
    )
    found = dict(subgroups(rows, ("sex", "age", "site"), (18, 40, 60, 75)))
    masks = {name: np.flatnonzero(mask).tolist() for name, mask in found.items()}
    assert masks == {
        "sex=F": [0, 3],
        "sex=M": [1],
        "sex=unknown": [2, 4],
        "age=0-18": [0],
        "age=18-40": [1],
        "age=40-60": [2],
        "age=unknown": [3],
        "age=75+": [4],
        "site=A": [0, 1, 4],
        "site=B": [2],
        "site=unknown": [3],
    }


def test_nothing_asked_is_no_subgroup() -> None:
    assert not list(subgroups(pa.table({"sex": ["F"]}), (), (18,)))
