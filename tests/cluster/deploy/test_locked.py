"""The image's part of the lock: all that the package needs, and nothing that only tests do."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.deploy.locked import needed
from tests.cluster.deploy.manifests import CHECKOUT, DEPLOY

LOCK = (CHECKOUT / "requirements.lock").read_text()
PROJECT = "rayward (pyproject.toml)"


def names(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE))


def closure(root: str) -> set[str]:
    """What an installed package needs, by its own metadata: another way to the same answer."""
    found: set[tuple[str, str]] = set()
    pending = [(root, "")]  # a package, and one of its extras or none
    while pending:
        name, extra = pending.pop()
        for one in map(Requirement, metadata.requires(name) or []):
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                key = canonicalize_name(one.name)
                new = {(key, wanted) for wanted in {"", *one.extras}} - found
                found |= new
                pending += new
    return {name for name, _ in found}


def test_all_that_the_package_needs_is_there() -> None:
    assert closure("rayward") - names(needed(LOCK, [PROJECT])) == set()


def test_no_test_tool_is_there_and_every_hash_is() -> None:
    part = needed(LOCK, [PROJECT])
    tools = {"pytest", "moto", "mypy", "ruff", "hypothesis", "grad-cam", "import-linter", "uv"}
    assert tools <= names(LOCK)
    assert tools & names(part) == set()
    assert all(one in LOCK for one in part.split("\n"))
    assert all("--hash=sha256:" in one for one in re.split(r"\n(?=[a-z0-9])", part))


def test_a_package_can_be_left_out_with_what_it_alone_needs() -> None:
    lock = (
        "app==1 \\\n    --hash=sha256:a\n    # via top\n"
        "heavy==1 \\\n    --hash=sha256:b\n    # via app\n"
        "deep==1 \\\n    --hash=sha256:c\n    # via heavy\n"
        "both==1 \\\n    --hash=sha256:d\n    # via\n    #   heavy\n    #   app\n"
        "other==1 \\\n    --hash=sha256:e\n    # via elsewhere\n"
    )
    assert names(needed(lock, ["top"])) == {"app", "heavy", "deep", "both"}
    assert names(needed(lock, ["top"], ["heavy"])) == {"app", "both"}
    assert names(needed(lock, ["heavy"])) == {"heavy", "deep", "both"}


@pytest.mark.parametrize(("roots", "without"), [(["nobody"], []), (["uv"], ["nobody"])])
def test_an_unknown_name_is_refused(roots: list[str], without: list[str]) -> None:
    with pytest.raises(ValueError, match="not in the lock: nobody"):
        needed(LOCK, roots, without)


def test_it_runs_without_anything_installed(tmp_path: Path) -> None:
    script = DEPLOY / "locked.py"
    done = subprocess.run(
        [sys.executable, "-S", "-I", script, CHECKOUT / "requirements.lock", "uv", "hatchling"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"uv", "hatchling", "pluggy"} <= names(done.stdout)
    assert "torch" not in names(done.stdout)
