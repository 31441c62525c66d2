"""The doctor's checks of the machine: memory, disks, the key file."""

from collections import namedtuple
from pathlib import Path

import pytest

from cluster.doctor import machine
from cluster.doctor.check import State
from cluster.doctor.machine import (
    GIB,
    check_disk,
    check_key,
    check_ray,
    check_temporary_disk,
    usable_memory,
)

Usage = namedtuple("Usage", "total used free")


def pretend_disk(monkeypatch: pytest.MonkeyPatch, *, total: float, free: float) -> None:
    usage = Usage(int(total * GIB), int((total - free) * GIB), int(free * GIB))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: usage)


@pytest.mark.parametrize(
    ("free", "state"), [(0.5, State.FAIL), (1.5, State.WARN), (9.9, State.WARN), (10.1, State.OK)]
)
def test_a_full_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: State
) -> None:
    pretend_disk(monkeypatch, total=100, free=free)
    check = check_disk("lake disk", tmp_path)
    assert (check.state, check.name) == (state, "lake disk")
    assert check.detail == f"{free:.1f} GiB free at {tmp_path}"


def test_the_disk_of_a_folder_to_come_is_its_parents(tmp_path: Path) -> None:
    check = check_disk("lake disk", tmp_path / "not" / "yet")
    assert check.detail.endswith(f"free at {tmp_path}")
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(("free", "state"), [(40, State.FAIL), (60, State.OK)])
def test_a_disk_too_full_for_ray_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: State
) -> None:
    pretend_disk(monkeypatch, total=1000, free=free)  # 96 % and 94 % full, both with room to write
    check = check_temporary_disk(tmp_path)
    assert check.state is state
    assert ("95 %" in check.detail) is (state is State.FAIL)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    whole = usable_memory(tmp_path / "absent")
    limit.write_text("max\n")
    assert usable_memory(limit) == whole
    limit.write_text(f"{256 * 2**20}\n")
    assert usable_memory(limit) == 256 * 2**20
    limit.write_text(f"{whole * 2}\n")
    assert usable_memory(limit) == whole


def test_memory_agrees_with_the_kernel(tmp_path: Path) -> None:
    line = Path("/proc/meminfo").read_text().splitlines()[0]
    assert usable_memory(tmp_path / "absent") == int(line.split()[1]) * 1024


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_memory", lambda: 2 * GIB)
    check = check_ray()
    assert check.state is State.WARN
    assert "2.0 GiB of memory" in check.detail


def test_little_shared_memory_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_memory", lambda: 16 * GIB)
    pretend_disk(monkeypatch, total=64 / 1024, free=64 / 1024)  # what Docker gives
    check = check_ray(tmp_path)
    assert check.state is State.WARN
    assert "only 0.06 GiB" in check.detail
    assert "--shm-size" in check.remedy


def test_enough_of_both_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_memory", lambda: 16 * GIB)
    pretend_disk(monkeypatch, total=8, free=8)
    assert check_ray(tmp_path).state is State.OK


def test_a_private_key_is_fine(tmp_path: Path) -> None:
    key = tmp_path / "pseudonym.key"
    key.write_bytes(b"x" * 32)
    key.chmod(0o600)
    check = check_key(key, tmp_path / "lake")
    assert (check.state, check.detail) == (State.OK, f"{key}, mode 0600")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_others_can_read_fails(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "pseudonym.key"
    key.write_bytes(b"x" * 32)
    key.chmod(mode)
    check = check_key(key, None)
    assert (check.state, check.remedy) == (State.FAIL, f"chmod 600 {key}")
    assert f"{mode:04o}" in check.detail


def test_a_key_inside_the_lake_fails(tmp_path: Path) -> None:
    check = check_key(tmp_path / "lake" / "keys" / "pseudonym.key", tmp_path / "lake")
    assert check.state is State.FAIL
    assert "inside the lake" in check.detail


def test_a_missing_key_is_a_warning(tmp_path: Path) -> None:
    check = check_key(tmp_path / "pseudonym.key", None)
    assert check.state is State.WARN
    assert "every node" in check.remedy


def test_a_key_path_through_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check_key(tmp_path / "file" / "pseudonym.key", None).state is State.FAIL


def test_no_check_shows_the_key_itself(tmp_path: Path) -> None:
    key = tmp_path / "pseudonym.key"
    key.write_text("8d3c5e-very-secret")
    key.chmod(0o600)
    assert "secret" not in str(check_key(key, None))
