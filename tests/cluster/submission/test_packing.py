"""The package of a working directory: what goes, what stays, and how large it may be."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from cluster.submission.packing import list_files, pack
from schemas.errors import UsageError


def make(root: Path, *files: str, content: str = "x") -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def names(root: Path, *without: Path) -> list[str]:
    return [one.path for one in list_files(root, without)]


def test_code_goes_and_environments_caches_and_secrets_stay(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("studies/night.yaml", "tools/own.py", "metadata.csv", ".gitattributes"),
        *(".git/HEAD", ".venv/bin/python", "pkg/__pycache__/a.pyc", ".mypy_cache/x"),
        *("sub/.venv/bin/python", "node_modules/a.js", ".hypothesis/x", "old.pyc"),
        *(".env", ".env.local", "sub/pseudonym.key", "tls.pem", ".aws/credentials", "auth_token"),
        *("gcp-credentials.json", ".ssh/id_rsa", ".rayward/order.json"),
    )
    assert names(tmp_path) == [
        ".gitattributes",
        "metadata.csv",
        "studies/night.yaml",
        "tools/own.py",
    ]


def test_lakes_caches_and_sources_stay(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "lake/lake.json", "lake/tables/x.parquet", "data/one.png", "data2/b.csv")
    make(tmp_path, "deep/other/lake.json", "deep/c.py", "cached/CACHEDIR.TAG", "cached/d")
    assert names(tmp_path, tmp_path / "data") == ["a.py", "data2/b.csv", "deep/c.py"]


def test_links_to_folders_are_not_followed_and_sockets_stay(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "archive.png")
    root = make(tmp_path / "root", "a.py")
    (root / "shared").symlink_to(tmp_path / "elsewhere")
    (root / "linked.png").symlink_to(tmp_path / "elsewhere/archive.png")
    (root / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "pipe")
    assert names(root) == ["a.py", "linked.png"]


@pytest.mark.skipif(shutil.which("git") is None, reason="compared with git, which is missing here")
def test_ignore_files_are_read_as_git_reads_them(tmp_path: Path) -> None:
    make(
        tmp_path, ".gitignore", content="*.bin\n/top\nout/\n!keep.bin\nsub/*.tmp\n# note\n\\#odd\n"
    )
    make(tmp_path / "sub", ".gitignore", content="!*.bin\nlocal\n/only-here\n")
    for folder in ("", "sub/", "sub/deep/", "other/"):
        make(
            tmp_path,
            *(f"{folder}{name}" for name in ("a.bin", "keep.bin", "top", "a.tmp", "local")),
            *(f"{folder}{name}" for name in ("only-here", "out/x", "#odd", "a.py", "spaced name")),
        )
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    found = subprocess.run(
        ["git", "-C", tmp_path, "ls-files", "-z", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert names(tmp_path) == sorted(
        found.stdout.rstrip("\0").split("\0"), key=lambda one: one.split("/")
    )


def test_rayignore_adds_to_gitignore(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "big.csv", "b.log")
    make(tmp_path, ".gitignore", content="*.log\n")
    make(tmp_path, ".rayignore", content="*.csv\n")
    assert names(tmp_path) == [".gitignore", ".rayignore", "a.py"]


def test_equal_contents_make_equal_bytes(tmp_path: Path) -> None:
    one, two = make(tmp_path / "1", "a.py", "b/c.py"), make(tmp_path / "2", "b/c.py", "a.py")
    os.utime(two / "a.py", (1, 1))
    packages = [pack(root, tmp_path / f"{root.name}.zip", {"z": b"1"}) for root in (one, two)]
    assert packages[0].file.read_bytes() == packages[1].file.read_bytes()
    with zipfile.ZipFile(packages[0].file) as found:
        assert found.namelist() == ["z", "a.py", "b/c.py"]
        assert found.read("b/c.py") == b"x"
    assert packages[0].bytes == packages[0].file.stat().st_size


def test_large_files_are_told(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "a.py")
    (root / "weights.bin").write_bytes(bytes(3 * 2**20))
    (root / "more.bin").write_bytes(bytes(2**20))
    large = pack(root, tmp_path / "p.zip", {}).large
    assert [(one.path, one.bytes) for one in large] == [
        ("weights.bin", 3 * 2**20),
        ("more.bin", 2**20),
    ]


def test_a_package_above_the_limit_is_refused_with_its_largest_files(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "a.py")
    for number in range(8):
        (root / f"scan-{number}.png").write_bytes(os.urandom(2**20 + number * 2**16))
    with pytest.raises(UsageError) as refused:
        pack(root, tmp_path / "p.zip", {}, limit=5 * 2**20)
    text = str(refused.value)
    assert "above Ray's limit of 5.0 MiB" in text
    assert "got 9 files, 9.8 MiB; the largest are scan-7.png (1.4 MiB), scan-6.png" in text
    assert ".rayignore" in text
    assert "S3 or a shared mount" in text


def test_a_working_directory_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no directory"):
        pack(tmp_path / "nowhere", tmp_path / "p.zip", {})
