"""Phantoms of several sites: a shift in the pixels, and names in the catalogue."""

from collections import defaultdict

import cv2
import numpy as np
import pyarrow as pa
import pytest

import jobs.phantoms
from schemas.specs.phantoms import PhantomsSpec
from tests.jobs.ingest.world import World
from workers.phantoms import sharding

COUNT = 240


@pytest.mark.parametrize(("sites", "shifted"), [(2, True), (1, False)])
def test_sites_reach_the_catalogue_and_differ_in_brightness_and_contrast(
    world: World, sites: int, shifted: bool
) -> None:
    spec = PhantomsSpec(
        target=str(world.source), count=COUNT, size=48, modalities={"us": 0, "xray": 1},
        sites=sites, broken_share=0, duplicate_share=0, near_duplicate_share=0, seed=4,
    )  # fmt: skip
    plan = jobs.phantoms.plan(spec, world.lake)
    made = sharding.load(plan.params)(pa.table({"index": range(COUNT)}), [b""] * COUNT)
    finished = sharding.load_finish(plan.params)(made.tables)
    for name, data in {**made.files, **finished.files}.items():
        world.write(name, data)
    world.source /= "images"
    world.ingest(metadata={"file": str(world.source.parent / "metadata.csv")})
    found = world.present("site", "label")
    assert len(found) == COUNT
    stated = {
        row["path"]: (row["site"], row["label"]) for row in made.tables["_metadata"].to_pylist()
    }
    assert found == stated

    figures = defaultdict(list)
    # Of one site, any two halves of the patients are compared instead.
    for path, (site, _) in found.items():
        if path.endswith("dcm"):
            continue
        grey = cv2.imread(str(world.source / path), cv2.IMREAD_GRAYSCALE)
        half = site if sites > 1 else f"half {int(path.split('/')[1][2:]) % 2}"
        figures[half].append((grey.mean(), grey.std()))
    one, two = (np.array(figures[name]) for name in sorted(figures))
    assert min(len(one), len(two)) > 40
    error = np.sqrt(one.var(axis=0) / len(one) + two.var(axis=0) / len(two))
    apart = np.abs(one.mean(axis=0) - two.mean(axis=0)) / error
    assert (apart > 4).all() if shifted else (apart < 3).all(), apart
