"""Which files of an archive are catalogued: patterns, on a disk and on S3."""

from pathlib import Path

import pytest

import jobs.ingest
from schemas.errors import SourceError, VanishedShareError
from schemas.plan import Counts
from schemas.specs.ingest import IngestSpec
from tests.jobs.ingest.world import World


def test_what_a_pattern_leaves_out_is_counted_and_never_read(world: World) -> None:
    world.add("benign/1.png", "benign/1_mask.png", "benign/2.png", "masks/3.png", "note.png")
    world.write("benign/4_mask.txt", b"no picture: its bytes would be rejected")
    report = world.ingest(exclude=["*_mask*", "masks/"])
    assert report.counts == Counts(done=3)
    assert report.facts["left out by pattern"] == 3
    assert world.read == ["1.png", "2.png", "note.png"]
    assert set(world.present("uri")) == {"benign/1.png", "benign/2.png", "note.png"}
    again = world.ingest(exclude=["*_mask*", "masks/"])
    assert (again.status, again.facts["left out by pattern"]) == ("up_to_date", 3)
    assert world.query("SELECT count(*) AS n FROM rejects") == [{"n": 0}]


def test_only_what_is_included_comes_in(world: World) -> None:
    world.add("a/1.png", "a/1.jpg", "b/2.png", "b/2_mask.png")
    report = world.ingest(include=["*.png"], exclude=["*_mask*"])
    assert set(world.present("uri")) == {"a/1.png", "b/2.png"}
    assert report.facts["left out by pattern"] == 2
    assert "left out by pattern" not in world.ingest(include=["*"]).facts
    assert set(world.present("uri")) == {"a/1.png", "a/1.jpg", "b/2.png", "b/2_mask.png"}


def test_what_a_new_pattern_leaves_out_leaves_the_data_set(world: World) -> None:
    world.add("1.png", "1_mask.png", "2.png")
    world.ingest()
    report = world.ingest(exclude=["*_mask*"])
    assert (report.counts.gone, report.counts.up_to_date) == (1, 2)
    assert set(world.present("uri")) == {"1.png", "2.png"}
    with pytest.raises(VanishedShareError, match="got 2 of 2 gone.*patterns") as stopped:
        world.ingest(include=["3.png", "*_mask*"])
    assert "max_gone_share: 1" in str(stopped.value)
    assert set(world.present("uri")) == {"1.png", "2.png"}


def test_patterns_that_leave_nothing_are_told(world: World) -> None:
    world.add("1.png", "2.png")
    with pytest.raises(SourceError, match="leave out every file") as stopped:
        world.plan(include=["*.dcm"])
    assert stopped.value.got == "2 files, none of them wanted"


def test_patterns_change_what_a_job_is_and_their_absence_does_not(world: World) -> None:
    assert "include" not in world.spec().identity() and "exclude" not in world.spec().identity()
    assert world.spec(exclude=["x"]).identity() != world.spec(exclude=["y"]).identity()


@pytest.mark.parametrize("field", ["include", "exclude"])
def test_a_pattern_that_is_none_is_told(world: World, field: str) -> None:
    with pytest.raises(ValueError, match=r"!\*\.png is no pattern here"):
        world.spec(**{field: ["!*.png"]})


@pytest.mark.usefixtures("own_home")
def test_masks_of_a_real_data_set_stay_out(shared_data: Path, tmp_path: Path) -> None:
    world = World(tmp_path)
    files = [one for one in (shared_data / "us-busi").rglob("*") if one.is_file()]
    masks = [one for one in files if "_mask" in one.name]
    spec = {"source": str(shared_data / "us-busi"), "exclude": ["*_mask*"]}
    plan = jobs.ingest.plan(IngestSpec.model_validate({"name": "busi", **spec}), world.lake)
    assert plan.inputs.num_rows == len(files) - len(masks) > 0
    assert plan.facts["left out by pattern"] == len(masks) > 0
