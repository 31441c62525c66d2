"""What the doctor says of Ray's token."""

from pathlib import Path

import pytest

from cluster.doctor.access import check_token
from cluster.doctor.check import State


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def put(path: Path, mode: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("t0ken")
    path.chmod(mode)
    return path


def test_no_token_yet_is_fine() -> None:
    assert check_token().state is State.OK


def test_tokens_turned_off_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    found = check_token()
    assert found.state is State.FAIL
    assert "runs code for anyone on the network" in found.detail


@pytest.mark.parametrize(("mode", "state"), [(0o600, State.OK), (0o644, State.WARN)])
def test_the_default_file_should_be_closed(home: Path, mode: int, state: State) -> None:
    path = put(home / ".ray/auth_token", mode)
    found = check_token()
    assert found.state is state
    assert str(path) in found.detail
    assert "t0ken" not in found.detail


@pytest.mark.parametrize(("mode", "state"), [(0o600, State.OK), (0o640, State.FAIL)])
def test_a_named_file_must_be_closed(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: int, state: State
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(put(home / "token", mode)))
    found = check_token()
    assert found.state is state
    assert ("chmod 600" in found.remedy) is (state is State.FAIL)


def test_a_token_of_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t0ken")
    found = check_token()
    assert (found.state, found.detail) == (State.OK, "from RAY_AUTH_TOKEN")
