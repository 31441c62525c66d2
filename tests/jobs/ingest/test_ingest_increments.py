"""Tests of ingest over time: what is new, changed, corrected or gone, and nothing else."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import KeyFileError, SourceError, VanishedShareError
from tests.jobs.ingest.world import World, picture
from workers.pseudonyms import key_file


def counts(report: Any) -> dict[str, int]:
    return {name: count for name, count in report.counts.to_dict().items() if count}


def test_the_first_run_reads_everything_and_the_second_nothing(world: World) -> None:
    world.add("a/1.png", "a/2.png", "b/3.png")
    report = world.ingest()
    assert counts(report) == {"input": 3, "done": 3}
    assert (report.unit, report.facts["frames"]) == ("files", 3)
    assert world.read == ["1.png", "2.png", "3.png"]
    assert set(world.present("image_id")) == {"a/1.png", "a/2.png", "b/3.png"}
    report = world.ingest()
    assert counts(report) == {"input": 3, "up_to_date": 3}
    assert (report.status, report.run_id) == ("up_to_date", None)
    assert world.read == []


def test_only_new_and_changed_files_are_read(world: World) -> None:
    world.add("1.png", "2.png")
    world.ingest()
    before = world.present("image_id")
    world.add("2.png", "3.png")
    report = world.ingest()
    assert counts(report) == {"input": 3, "done": 2, "up_to_date": 1}
    assert (report.facts["new files"], report.facts["changed files"]) == (1, 1)
    assert world.read == ["2.png", "3.png"]
    after = world.present("image_id")
    assert after["1.png"] == before["1.png"]
    assert after["2.png"] != before["2.png"]
    assert len(world.query("SELECT * FROM images")) == 4


def test_a_touched_file_is_read_and_keeps_its_id(world: World) -> None:
    world.add("1.png")
    world.ingest()
    before = world.present("image_id", "etag")["1.png"]
    os.utime(world.source / "1.png", ns=(5, 5))
    assert counts(world.ingest()) == {"input": 1, "done": 1}
    after = world.present("image_id", "etag")["1.png"]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert counts(world.ingest()) == {"input": 1, "up_to_date": 1}


def test_equal_bytes_are_one_image_with_two_uris(world: World) -> None:
    data = picture(1)
    world.write("1.png", data)
    world.write("2.png", data)
    world.ingest()
    ids = world.present("image_id")
    assert ids["1.png"] == ids["2.png"]
    assert len(world.query("SELECT * FROM current_images")) == 1


def test_a_gone_file_gets_a_row_and_comes_back_as_new(world: World) -> None:
    world.add("1.png", "2.png", "3.png")
    world.ingest()
    data = (world.source / "2.png").read_bytes()
    (world.source / "2.png").unlink()
    report = world.ingest()
    assert counts(report) == {"input": 3, "up_to_date": 2, "gone": 1}
    assert world.read == []
    assert set(world.present("image_id")) == {"1.png", "3.png"}
    states = world.query(
        "SELECT state, image_id FROM images WHERE uri LIKE '%2.png' ORDER BY seen_at"
    )
    assert [one["state"] for one in states] == ["present", "gone"]
    assert states[0]["image_id"] == states[1]["image_id"]
    assert counts(world.ingest()) == {"input": 2, "up_to_date": 2}
    world.write("2.png", data)
    assert counts(world.ingest()) == {"input": 3, "done": 1, "up_to_date": 2}
    assert world.present("image_id")["2.png"] == states[0]["image_id"]


def test_a_vanished_share_stops_before_anything_is_written(world: World) -> None:
    world.add(*(f"{number}.png" for number in range(10)))
    world.ingest()
    for number in range(6):
        (world.source / f"{number}.png").unlink()
    runs = world.query("SELECT * FROM runs")
    with pytest.raises(VanishedShareError, match="6 of 10 gone, at most 50%") as error:
        world.ingest()
    assert "max_gone_share: 1" in str(error.value)
    with pytest.raises(VanishedShareError):
        world.plan()
    assert world.query("SELECT * FROM runs") == runs
    assert len(world.present("image_id")) == 10
    assert counts(world.ingest(max_gone_share=0.6)) == {"input": 10, "up_to_date": 4, "gone": 6}


def test_half_of_the_files_may_vanish_by_default(world: World) -> None:
    world.add("1.png", "2.png")
    world.ingest()
    (world.source / "1.png").unlink()
    assert counts(world.ingest()) == {"input": 2, "up_to_date": 1, "gone": 1}


def test_an_unmounted_archive_is_an_error_and_nothing_is_gone(world: World) -> None:
    world.add("1.png")
    world.ingest()
    shutil.rmtree(world.source)
    with pytest.raises(SourceError, match="does not exist"):
        world.ingest()
    world.source.mkdir()
    with pytest.raises(SourceError, match="no files"):
        world.ingest()
    assert set(world.present("image_id")) == {"1.png"}


def test_another_source_of_the_data_set_does_not_take_the_first_for_gone(world: World) -> None:
    world.add("north/1.png", "north-east/2.png")
    assert counts(world.ingest(source=f"{world.source}/north")) == {"input": 1, "done": 1}
    assert counts(world.ingest(source=f"{world.source}/north-east")) == {"input": 1, "done": 1}
    assert counts(world.ingest(source=f"{world.source}/north/")) == {"input": 1, "up_to_date": 1}
    assert set(world.present("image_id")) == {"north/1.png", "north-east/2.png"}


def test_data_sets_do_not_see_each_other(world: World) -> None:
    world.add("1.png")
    world.ingest()
    assert counts(world.ingest(dataset="other")) == {"input": 1, "done": 1}
    assert counts(world.ingest(name="third", dataset="demo")) == {"input": 1, "up_to_date": 1}


def test_a_reject_stands_until_the_bytes_or_the_limits_change(world: World) -> None:
    world.add("1.png")
    world.write("bad.png", b"\x89PNG\r\n\x1a\nbroken")
    assert counts(world.ingest()) == {"input": 2, "done": 1, "rejected": 1}
    report = world.ingest()
    assert counts(report) == {"input": 2, "up_to_date": 2}
    assert (report.facts["standing rejects"], world.read) == (1, [])
    assert counts(world.ingest(retry_rejects=True)) == {"input": 2, "up_to_date": 1, "rejected": 1}
    assert world.read == ["bad.png"]
    world.ingest(max_pixels=10**7)
    assert world.read == ["bad.png"]
    world.add("bad.png")
    assert counts(world.ingest()) == {"input": 2, "done": 1, "up_to_date": 1}


def test_a_file_that_breaks_is_rejected_and_its_image_gone(world: World) -> None:
    world.add("1.png", "2.png")
    world.ingest()
    world.write("2.png", b"")
    assert counts(world.ingest()) == {"input": 2, "up_to_date": 1, "rejected": 1}
    assert set(world.present("image_id")) == {"1.png"}
    assert counts(world.ingest()) == {"input": 2, "up_to_date": 2}
    (reject,) = world.query("SELECT stage, reason, image_id FROM rejects")
    assert reject == {"stage": "ingest", "reason": "empty_file", "image_id": None}


def test_a_file_beyond_the_limit_is_not_even_read(world: World) -> None:
    world.add("1.png")
    world.write("2.png", bytes(5000))
    assert counts(world.ingest(max_bytes=4000)) == {"input": 2, "done": 1, "rejected": 1}
    assert world.read == ["1.png"]
    assert world.query("SELECT reason FROM rejects") == [{"reason": "too_many_bytes"}]


def test_frames_that_a_file_lost_are_gone(world: World) -> None:
    def archive(count: int) -> bytes:
        sink = io.BytesIO()
        images = np.arange(count * 6, dtype=np.uint8).reshape(count, 2, 3)
        np.savez(sink, train_images=images, train_labels=np.arange(count))
        return sink.getvalue()

    world.write("set.npz", archive(4))
    world.ingest()
    rows = world.query("SELECT image_id, frame, label, split FROM current_images ORDER BY frame")
    assert [(one["frame"], one["label"], one["split"]) for one in rows] == [
        (number, str(number), "train") for number in range(4)
    ]
    assert [one["image_id"][32:] for one in rows] == [".0", ".1", ".2", ".3"]
    assert len({one["image_id"][:32] for one in rows}) == 1
    world.write("set.npz", archive(2))
    report = world.ingest()
    assert (counts(report), report.facts["frames"]) == ({"input": 1, "done": 1}, 2)
    assert len(world.query("SELECT * FROM current_images")) == 2
    assert counts(world.ingest()) == {"input": 1, "up_to_date": 1}


def test_one_file_is_a_source(world: World) -> None:
    world.add("1.png", "2.png")
    source = f"{world.source}/1.png"
    assert counts(world.ingest(source=source)) == {"input": 1, "done": 1}
    assert counts(world.ingest(source=source)) == {"input": 1, "up_to_date": 1}
    assert counts(world.ingest()) == {"input": 2, "done": 1, "up_to_date": 1}


def test_file_names_that_are_no_text_are_catalogued(world: World) -> None:
    world.add("1.png")
    (world.source / "1.png").rename(world.source / os.fsdecode(b"\xff.png"))
    assert counts(world.ingest()) == {"input": 1, "done": 1}
    assert counts(world.ingest()) == {"input": 1, "up_to_date": 1}


def test_a_dry_run_writes_nothing_and_makes_no_key(world: World) -> None:
    world.add("p1/1.png")
    fields = {"path": r"(?P<patient>p\d+)/.*"}
    plan = world.plan(fields=fields)
    assert (plan.inputs.num_rows, plan.shards, plan.unit) == (1, 1, "files")
    assert not key_file().exists()
    world.ingest(fields=fields)
    assert key_file().exists()
    assert world.plan(fields=fields).inputs.num_rows == 0


def test_a_lake_with_pseudonyms_never_gets_a_second_key(world: World) -> None:
    world.add("p1/1.png")
    world.ingest(fields={"path": r"(?P<patient>p\d+)/.*"})
    lost = key_file().read_bytes()
    key_file().unlink()
    for attempt in (world.plan, world.ingest):
        with pytest.raises(KeyFileError, match="missing"):
            attempt()
    assert not key_file().exists()
    key_file().write_text("ab" * 32 + "\n")
    key_file().chmod(0o600)
    with pytest.raises(KeyFileError, match="another key"):
        world.ingest()
    key_file().write_bytes(lost)
    assert counts(world.ingest(fields={"path": r"(?P<patient>p\d+)/.*"}))["up_to_date"] == 1


def test_shards_do_not_change_the_rows(world: World, tmp_path: Path) -> None:
    world.add(*(f"{number}.png" for number in range(7)))
    world.write("8.png", b"bad")
    report = world.ingest(execution={"shard_images": 3})
    assert counts(report) == {"input": 8, "done": 7, "rejected": 1}
    other = World(tmp_path / "other")
    other.source = world.source
    other.ingest()
    columns = "image_id, uri, frame, etag, width, height, bits, label, state"
    sql = f"SELECT {columns} FROM images ORDER BY uri"
    assert world.query(sql) == other.query(sql)
