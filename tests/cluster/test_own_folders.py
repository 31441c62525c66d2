"""Folders that killed processes leave behind go with the next one; others stay."""

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster import own_folders
from cluster.lake.leases import Holder

_KILLED = """
import os, sys, tempfile

tempfile.tempdir = sys.argv[1]
from cluster.own_folders import make_folder

(make_folder("copies") / "0").write_text("rows")
os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def leave(folder: Path, name: str, owner: Holder | None) -> Path:
    directory = folder / name
    directory.mkdir()
    if owner:
        (directory / "owner.json").write_text(json.dumps(dataclasses.asdict(owner)))
    return directory


def test_only_folders_of_the_dead_are_swept(tmp_path: Path) -> None:
    me = Holder.this_process()
    dead = leave(tmp_path, "rayward-1-a", dataclasses.replace(me, start_ticks=1))
    mine = leave(tmp_path, "rayward-2-b", me)
    elsewhere = leave(
        tmp_path, "rayward-3-c", dataclasses.replace(me, start_ticks=1, pid_namespace="other")
    )
    unnamed = leave(tmp_path, "rayward-4-d", None)
    unfinished = leave(tmp_path, "rayward-5-e", None)
    (unfinished / "owner.json").write_text("")
    own_folders.sweep()
    assert not dead.exists()
    assert all(one.exists() for one in (mine, elsewhere, unnamed, unfinished))


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -9
    (left,) = tmp_path.glob("rayward-copies-*/0")
    assert left.read_text() == "rows"
    ours = own_folders.make_folder("toy")
    assert list(tmp_path.iterdir()) == [ours]
    assert ours.stat().st_mode & 0o077 == 0
    own_folders.sweep()
    assert ours.exists()
