"""What all tests share: real data where it lies beside the checkout, and an environment apart."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# The same examples on every machine, no time limit on a busy one, nothing written to the tree.
hypothesis.settings.register_profile("house", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("house")

# Test processes share the cores: with threads of their own they wait for each other's. Read by
# torch when a test module imports it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public data sets; the test is skipped where it is absent."""
    folder = Path(os.environ.get("RAYWARD_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (RAYWARD_DATA names another folder)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def quiet_libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One font cache for all tests and the processes they start; no usage statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray keeps its token below the home, which changes from test to test while a Ray runs on.
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Otherwise Ray's workers give way to the other test processes, and their tests wait.
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, so that no test meets the user's keys, settings or caches."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    monkeypatch.setenv("RAYWARD_KEY_FILE", str(home / "pseudonym.key"))
    return home
