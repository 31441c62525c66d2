"""The package of a working directory: what goes, what stays, and how large it may be."""

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from cluster.submission.leftovers import Left, Rule, count_left
from cluster.submission.packing import list_files, pack
from cluster.submission.withheld import secret_files
from schemas.errors import UsageError

DOCS = Path(__file__).resolve().parents[3] / "docs"


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
        *(
            "sub/.venv/bin/python",
            "sub/.env/bin/python",
            "node_modules/a.js",
            ".hypothesis/x",
            "old.pyc",
        ),
        *(".env", ".env.local", "sub/pseudonym.key", "tls.pem", ".aws/credentials", "auth_token"),
        *("gcp-credentials.json", ".ssh/id_rsa", ".rayward/order.json"),
    )
    assert names(tmp_path) == [
        ".gitattributes",
        "metadata.csv",
        "studies/night.yaml",
        "tools/own.py",
    ]


def test_files_of_secrets_stay_by_their_names_and_code_goes(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("token", "token.txt", "ray-token", "sub/kube_token", "my.token", "secrets.env", "vm.env"),
        *("credentials", ".git-credentials", ".pypirc", ".npmrc", ".netrc", "pip.conf", ".envrc"),
        *("id_rsa", "sub/id_ed25519", "server.p12", "secrets.yaml", "users-credentials.csv"),
        *(".kube/config", ".docker/config.json", ".gnupg/x", "kubeconfig"),
        *(
            "secrets.py",
            "tokens.py",
            "pkg/token/parse.py",
            "pkg/credentials/__init__.py",
            "tokenizer.json",
        ),
        *("pkg/token/server.key", "pkg/my_token/token"),
    )
    assert names(tmp_path) == [
        "pkg/credentials/__init__.py",
        "pkg/token/parse.py",
        "secrets.py",
        "tokenizer.json",
        "tokens.py",
    ]


def test_files_of_secrets_that_the_pages_make_stay(tmp_path: Path) -> None:
    text = "".join((DOCS / page).read_text() for page in ("security.md", "deploy.md"))
    made = re.findall(r"--from-file=(\S+)", text) + re.findall(r"-d > (\S+)", text)
    made += re.findall(r"rand -hex 32 > (\S+)", text)
    for line in re.findall(r"install -m 0?600 ([^#\n]+)", text):
        made += [one for one in line.split() if not one.startswith("/")]
    found = {Path(one).name for one in made}
    assert found == {"auth_token", "kube-token", "ray-token", "pseudonym.key", "credentials"}
    assert names(make(tmp_path, *found, "a.py")) == ["a.py"]


def test_files_of_secrets_that_the_environment_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "root", "a.py", "one", "two", "three", "four")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(root / "one"))
    monkeypatch.setenv("RAYWARD_KEY_FILE", str(root / "two"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(root / "three"))
    (root / "linked").symlink_to(root / "one")
    assert names(root, *secret_files()) == ["a.py", "four"]


def test_a_file_that_holds_the_token_stops_it(tmp_path: Path) -> None:
    token = "5e" * 32
    root = make(tmp_path / "root", "a.py", "notes.md")
    pack(root, tmp_path / "p.zip", {}, token=token)
    make(root, "notes.md", content=f"export RAY_AUTH_TOKEN={token}\n")
    with pytest.raises(UsageError, match="holds the cluster's token") as refused:
        pack(root, tmp_path / "p.zip", {}, token=token)
    assert refused.value.where == "notes.md"
    assert token not in str(refused.value)
    # A short one may stand anywhere by chance; alone in a file it is the token.
    pack(make(root, "notes.md", content="a t0ken"), tmp_path / "p.zip", {}, token="t0ken")
    with pytest.raises(UsageError, match="holds the cluster's token"):
        pack(make(root, "notes.md", content="t0ken\n"), tmp_path / "p.zip", {}, token="t0ken")


def test_images_stay_by_name_and_by_content_unless_rayignore_names_them(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "scan.dcm", "img/X.PNG", "img/y.jpeg", "vol.nii.gz", "b.tif", "logo.png")
    make(tmp_path, "sub/logo.png", "sub/code.gz", "empty", content="")
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(40))
    (tmp_path / "export.dat").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    make(tmp_path, ".gitignore", content="!scan.dcm\n")  # of git's interest alone
    make(tmp_path, ".rayignore", content="!/logo.png\n*.tif\n")
    assert names(tmp_path) == [
        ".gitignore",
        ".rayignore",
        "a.py",
        "empty",
        "logo.png",
        "sub/code.gz",
    ]


def test_lakes_caches_and_sources_stay(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "lake/lake.json", "lake/tables/x.parquet", "data/one.png", "data2/b.csv")
    make(tmp_path, "deep/other/lake.json", "deep/c.py", "cached/CACHEDIR.TAG", "cached/d")
    assert names(tmp_path, tmp_path / "data") == ["a.py", "data2/b.csv", "deep/c.py"]


def test_links_to_folders_are_not_followed_and_sockets_stay(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "archive.csv")
    root = make(tmp_path / "root", "a.py")
    (root / "shared").symlink_to(tmp_path / "elsewhere")
    (root / "linked.csv").symlink_to(tmp_path / "elsewhere/archive.csv")
    (root / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "pipe")
    assert names(root) == ["a.py", "linked.csv"]


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


def test_what_stays_is_counted_by_its_rule(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "a.py", "scans/a.png", "b.dcm", "notes/c.jpg", content="1234")
    make(root, ".gitignore", content="*.log\n/out/\n")
    make(root, ".rayignore", content="*.csv\n!notes/c.jpg\n")
    make(root, "x.log", "out/1", "out/deep/2", content="12")
    make(root, "big.csv", "data/m.csv", "data/more/n", "lake/lake.json", content="123456")
    make(root, ".git/HEAD", ".env", "cached/CACHEDIR.TAG", "cached/d", content="x" * 10)
    (root / "linked").symlink_to(tmp_path)
    package = pack(root, tmp_path / "p.zip", {}, without=[root / "data"])
    assert {one.rule.name: (one.files, one.bytes) for one in package.left_out} == {
        "IMAGES": (2, 8),
        "GIT": (3, 6),
        "RAY": (1, 6),
        "NAMED": (2, 12),
        "LAKES": (1, 6),
        "NEVER": (2, 20),
        "CACHES": (2, 20),
        "LINKS": (1, 0),
    }
    sizes = [one.bytes for one in package.left_out]
    assert sizes == sorted(sizes, reverse=True) and all(one.is_whole for one in package.left_out)
    everything = {one.path for one in package.files}
    assert everything == {".gitignore", ".rayignore", "a.py", "notes/c.jpg"}


def test_a_large_archive_is_counted_in_part(tmp_path: Path) -> None:
    make(tmp_path / "data", *(f"{number}" for number in range(5)), content="123")
    left = [Left(tmp_path / "data", Rule.NAMED), Left(tmp_path / "data", Rule.LAKES)]
    counted = {one.rule: (one.files, one.bytes, one.is_whole) for one in count_left(left, limit=4)}
    assert counted == {Rule.NAMED: (4, 12, False), Rule.LAKES: (0, 0, False)}


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
        (root / f"table-{number}.bin").write_bytes(os.urandom(2**20 + number * 2**16))
    with pytest.raises(UsageError) as refused:
        pack(root, tmp_path / "p.zip", {}, limit=5 * 2**20)
    text = str(refused.value)
    assert "above Ray's limit of 5.0 MiB" in text
    assert "got 9 files, 9.8 MiB; the largest are table-7.bin (1.4 MiB), table-6.bin" in text
    assert ".rayignore" in text
    assert "S3 or a shared mount" in text


def test_a_working_directory_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no directory"):
        pack(tmp_path / "nowhere", tmp_path / "p.zip", {})
