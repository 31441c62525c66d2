"""Directories that embedded Rays leave behind when their driver is killed."""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest

from cluster import ray_session
from cluster.lake.leases import Holder


def leave(folder: Path, name: str, owner: Holder | None) -> Path:
    directory = folder / name
    directory.mkdir()
    if owner:
        (directory / "owner.json").write_text(json.dumps(dataclasses.asdict(owner)))
    return directory


def test_only_directories_of_the_dead_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    me = Holder.this_process()
    dead = leave(tmp_path, "rayward-1-a", dataclasses.replace(me, started_at=1.0))
    mine = leave(tmp_path, "rayward-2-b", me)
    elsewhere = leave(
        tmp_path, "rayward-3-c", dataclasses.replace(me, started_at=1.0, pid_namespace="other")
    )
    unnamed = leave(tmp_path, "rayward-4-d", None)
    ray_session._sweep()
    assert not dead.exists()
    assert all(one.exists() for one in (mine, elsewhere, unnamed))


def test_a_process_of_ray_s_own_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(
        ray_session.ray, "init", lambda *_, **__: pytest.fail("Ray is_there_already")
    )
    monkeypatch.setattr(ray_session.ray, "shutdown", lambda: pytest.fail("it is not ours"))
    session = ray_session.RaySession()
    session.start()
    session.stop()
