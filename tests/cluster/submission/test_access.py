"""Addresses and tokens: what is taken, from where, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from cluster.submission.access import (
    Access,
    cluster_url,
    find_access,
    find_token,
    is_loopback,
    read_token,
    secure_default_token,
)
from schemas.errors import UsageError

BEYOND = "http://ray.hospital.example:8265"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token, and an environment that says nothing of Ray."""
    for name in list(os.environ):
        if name.startswith("RAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def put_token(path: Path, text: str = "t0ken\n", mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://127.9.9.9:8265", True),
        ("http://[::1]:8265", True),
        ("http://localhost:8265", True),
        ("http://0.0.0.0:8265", False),
        ("http://10.0.0.7:8265", False),
        ("http://[fe80::1]:8265", False),
        ("http://localhost.evil.example:8265", False),
        ("http://127.0.0.1.evil.example:8265", False),
        (BEYOND, False),
    ],
)
def test_only_loopback_is_this_machine(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback


def test_a_cluster_beyond_this_machine_needs_a_token(home: Path) -> None:
    with pytest.raises(UsageError, match="no token for a cluster beyond") as refused:
        find_access(BEYOND)
    assert "--allow-no-token" in str(refused.value)
    assert "RAY_AUTH_TOKEN_PATH" in str(refused.value)
    assert find_access(BEYOND, allow_no_token=True).headers == {}
    assert find_access("http://127.0.0.1:1").headers == {}
    put_token(home / ".ray/auth_token")
    assert find_access(BEYOND).headers == {"Authorization": "Bearer t0ken"}


def test_the_address_comes_from_the_option_the_environment_or_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cluster_url(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://two:1/")
    assert cluster_url(None) == "http://two:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://one:1")
    assert cluster_url(None) == "http://one:1"
    assert cluster_url("https://given:1") == "https://given:1"


@pytest.mark.parametrize("address", ["auto", "10.0.0.7:6379", "ray://10.0.0.7:10001", "http://"])
def test_what_is_no_dashboard_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="submitted to a cluster's dashboard"):
        cluster_url(address)


def test_credentials_in_an_address_are_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="holds credentials") as refused:
        cluster_url("http://user:hunter2@host:8265")
    assert "hunter2" not in str(refused.value)
    assert "http://***@host:8265" in str(refused.value)


def test_the_token_comes_from_the_places_ray_looks_at_in_its_order(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_token() is None
    put_token(home / ".ray/auth_token", "default")
    put_token(home / "named", "named")
    found = [find_token()]
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "named"))
    found.append(find_token())
    monkeypatch.setenv("RAY_AUTH_TOKEN", "direct")
    found.append(find_token())
    assert [one and one.get_secret_value() for one in found] == ["default", "named", "direct"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o666])
def test_a_token_file_that_is_open_to_others_is_refused(home: Path, mode: int) -> None:
    path = put_token(home / "token", mode=mode)
    with pytest.raises(UsageError, match="open to others") as refused:
        read_token(path)
    assert f"got mode {mode:04o}" in str(refused.value)
    assert f"chmod 600 {path}" in str(refused.value)
    assert "t0ken" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_token_file_of_its_owner_is_read(home: Path, mode: int) -> None:
    assert read_token(put_token(home / "token", mode=mode)).get_secret_value() == "t0ken"


def test_a_token_file_that_is_missing_or_empty_is_told(home: Path) -> None:
    with pytest.raises(UsageError, match="can't be read.*No such file"):
        read_token(home / "nowhere")
    with pytest.raises(UsageError, match="is empty"):
        read_token(put_token(home / "empty", "\n"))


def test_a_token_is_never_shown() -> None:
    from pydantic import SecretStr

    access = Access(BEYOND, SecretStr("t0ken"))
    assert "t0ken" not in f"{access!r} {access} {json.dumps(str(access.token))}"


def test_a_token_is_made_for_its_owner_alone_and_kept(home: Path) -> None:
    before = os.umask(0o022)
    try:
        secure_default_token()
    finally:
        os.umask(before)
    path = home / ".ray/auth_token"
    token = path.read_text()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert len(bytes.fromhex(token)) == 32
    assert [one.name for one in path.parent.iterdir()] == ["auth_token"]
    secure_default_token()
    assert path.read_text() == token


def test_a_token_that_ray_left_open_is_closed(home: Path) -> None:
    path = put_token(home / ".ray/auth_token", mode=0o644)
    secure_default_token()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_token_that_is_named_is_checked_and_none_is_made(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_token(home / "token", mode=0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(UsageError, match="open to others"):
        secure_default_token()
    path.chmod(0o600)
    secure_default_token()
    assert not (home / ".ray").exists()


def test_a_home_that_takes_no_token_is_told(home: Path) -> None:
    (home / ".ray").write_text("in the way")
    with pytest.raises(UsageError, match="can't be written"):
        secure_default_token()
