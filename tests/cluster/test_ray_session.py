"""Which Ray a session starts or joins, and the tokens that Rays ask for."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RpcError

from cluster import ray_session
from schemas.errors import UsageError


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
    monkeypatch.setattr(ray_session, "_wants_token", lambda _: True)
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


@pytest.mark.usefixtures("home")
def test_a_cluster_that_wants_no_token_is_shown_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t0ken")
    monkeypatch.setattr(ray_session, "_wants_token", lambda _: False)
    ray_session.RaySession("127.0.0.1:6379").start()
    assert "RAY_AUTH_MODE" not in os.environ
    with pytest.raises(UsageError, match="wants no token"):
        ray_session.RaySession("10.0.0.7:6379").start()


@pytest.mark.usefixtures("home")
def test_local_is_ray_s_word_for_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(ray_session, "_wants_token", lambda _: pytest.fail("there is none to ask"))
    session = ray_session.RaySession()
    session.start()
    session.stop()
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("refused", [ConnectionError, ValueError, RpcError])
def test_a_cluster_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, refused: type[Exception]
) -> None:
    def fail(address: str) -> None:
        raise refused("at 10.0.0.7 of patient 12345")

    monkeypatch.setattr(ray_session, "GcsClient", fail)
    with pytest.raises(UsageError, match="No Ray cluster answers") as told:
        ray_session._wants_token("127.0.0.1:9")
    assert "12345" not in str(told.value)


_CLUSTER = """
import sys
from ray.cluster_utils import Cluster

nodes = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 1, "include_dashboard": False, "object_store_memory": 2**27})
print(nodes.address, flush=True)
sys.stdin.read()
nodes.shutdown()
"""
_DRIVER = """
import os, ray, sys
from cluster.ray_session import RaySession

class Seen:
    def seen(self):
        return True

session = RaySession(sys.argv[1])
session.start()
print("seen:", ray.get(ray.remote(Seen).remote().seen.remote()), os.environ.get("RAY_AUTH_MODE"))
session.stop()
"""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(("mode", "told"), [("token", "token"), ("disabled", "None")])
def test_actors_run_on_clusters_with_a_token_and_without(mode: str, told: str) -> None:
    # Ray's sockets lie below it, and their names are limited.
    with tempfile.TemporaryDirectory(prefix="rayward-", ignore_cleanup_errors=True) as folder:
        plain = {name: one for name, one in os.environ.items() if name != "RAY_AUTH_MODE"}
        plain |= {"RAY_TMPDIR": folder, "RAY_AUTH_TOKEN": "t0ken" * 8}
        nodes = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=plain | {"RAY_AUTH_MODE": mode},
        )
        assert nodes.stdout is not None
        driver = subprocess.run(
            [sys.executable, "-c", _DRIVER, nodes.stdout.readline().strip()],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=plain,
        )
        nodes.communicate("", timeout=60)
    assert f"seen: True {told}" in driver.stdout, driver.stderr[-2000:]


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
