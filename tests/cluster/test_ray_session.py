"""Directories that embedded Rays leave behind, and the tokens that Rays ask for."""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import ray_session
from cluster.lake.leases import Holder
from schemas.errors import UsageError


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
    dead = leave(tmp_path, "rayward-1-a", dataclasses.replace(me, start_ticks=1))
    mine = leave(tmp_path, "rayward-2-b", me)
    elsewhere = leave(
        tmp_path, "rayward-3-c", dataclasses.replace(me, start_ticks=1, pid_namespace="other")
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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token, an environment that says nothing of it, and a Ray that only says it
    was started.
    """
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what a session sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_session.ray, "init", lambda *_, **__: None)
    monkeypatch.setattr(ray_session.ray, "shutdown", lambda: None)
    # The real one would have this process's Ray ask for tokens in later tests too.
    monkeypatch.setattr(ray_session, "Config", FakeConfig)
    return tmp_path


class FakeConfig:
    """Stands in for Ray's own settings."""

    @staticmethod
    def initialize(_settings: str) -> None:
        """Read the environment anew."""


def test_an_embedded_ray_asks_for_a_token_of_its_owner_s(home: Path) -> None:
    session = ray_session.RaySession()
    session.start()
    session.stop()
    token = home / ".ray/auth_token"
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert token.stat().st_mode & 0o777 == 0o600


def test_an_embedded_ray_without_tokens_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UsageError, match="run code for anyone on the network"):
        ray_session.RaySession().start()
    assert not (home / ".ray").exists()


@pytest.mark.parametrize("address", ["10.0.0.7:6379", "ray.hospital.example:6379"])
def test_a_cluster_beyond_this_machine_wants_a_token(
    home: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with pytest.raises(UsageError, match="no token for a cluster beyond"):
        ray_session.RaySession(address).start()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # said by name
    ray_session.RaySession(address).start()
    monkeypatch.delenv("RAY_AUTH_MODE")
    token = home / ".ray/auth_token"
    token.parent.mkdir()
    token.write_text("t0ken")
    token.chmod(0o644)
    with pytest.raises(UsageError, match="open to others"):
        ray_session.RaySession(address).start()
    token.chmod(0o600)
    ray_session.RaySession(address).start()
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "localhost:6379"])
@pytest.mark.usefixtures("home")
def test_a_cluster_of_this_machine_needs_none(address: str) -> None:
    ray_session.RaySession(address).start()
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.usefixtures("home")
def test_this_machine_has_addresses_beside_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [SimpleNamespace(address="192.0.2.2")]
    monkeypatch.setattr(ray_session.psutil, "net_if_addrs", lambda: {"eth0": own})
    ray_session.RaySession("192.0.2.2:6379").start()
    with pytest.raises(UsageError, match="no token"):
        ray_session.RaySession("192.0.2.3:6379").start()
