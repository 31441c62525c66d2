"""Patterns of file names: read as git reads them, refused where they are none."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from schemas.globs import glob_regex

NAMES = (
    "a.png", "a_mask.png", "A.PNG", "sub/a.png", "sub/a_mask_1.png", "masks/a.png",
    "sub/masks/b.dcm", "sub/deep/masks.txt", "top/x.png", "sub/top/x.png", "a/b/c/d.png",
    "a/d.png", "benign (1).png", "benign (1)_mask.png", "#a", "[x].png", "x.p", "q.png",
)  # fmt: skip
GLOBS = (
    "*_mask*", "masks/", "masks", "*.png", "/top/*.png", "top/*.png", "a/**/d.png", "**/masks",
    "a/**", "?.png", "[aq].png", "[!aq].png", "benign (1)*", "*.p?g", "\\#a", "\\[x\\].png",
    "*.dcm", "/*", "**",
)  # fmt: skip


@pytest.fixture(scope="module")
def worktree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of git that holds the files."""
    if shutil.which("git") is None:
        pytest.skip("compared with git, which is missing here")
    root = tmp_path_factory.mktemp("worktree")
    subprocess.run(["git", "init", "-q", root], check=True)
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize("glob", GLOBS)
def test_a_pattern_matches_what_git_ignores(worktree: Path, glob: str) -> None:
    (worktree / ".gitignore").write_text(f"{glob}\n")
    listed = ["git", "-C", str(worktree), "ls-files", "-z", "--others", "--ignored"]
    found = subprocess.run([*listed, "--exclude-standard"], capture_output=True, check=True).stdout
    by_git = set(found.decode().rstrip("\0").split("\0")) - {"", ".gitignore"}
    assert {name for name in NAMES if re.search(glob_regex(glob), name)} == by_git


def test_a_character_is_one_character_whatever_its_bytes() -> None:
    assert re.search(glob_regex("?.png"), "ä.png")


@pytest.mark.parametrize("glob", ["", " ", "!a", "#a", "[", "/", "[[a]b]", "[[:alpha:]]*"])
def test_what_is_no_pattern_is_refused(glob: str) -> None:
    with pytest.raises(ValueError, match="is no pattern"):
        glob_regex(glob)
