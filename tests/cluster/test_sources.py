"""Tests of listing archives: local directories and S3 prefixes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from cluster.sources import head_source, list_source, local_etag, read_source
from cluster.storage import open_storage
from jobs.ingest.roots import source_root
from schemas.errors import SourceError


def make(root: Path, *paths: str) -> None:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.encode())


def paths_of(uri: str | Path) -> list[str]:
    return [file.path for file in list_source(str(uri))]


def test_lists_files_sorted_with_size_and_etag(tmp_path: Path) -> None:
    make(tmp_path, "b/2.png", "b/1.png", "a.png", "b-c/3.png", "b.png", "c/d/e/4.png")
    files = list(list_source(str(tmp_path)))
    assert [file.path for file in files] == sorted(
        ["b/2.png", "b/1.png", "a.png", "b-c/3.png", "b.png", "c/d/e/4.png"]
    )
    first = files[0]
    status = (tmp_path / "a.png").stat()
    assert first.uri == str(tmp_path / "a.png")
    assert (first.bytes, first.etag) == (5, f"{status.st_mtime_ns:x}-5")
    assert first.etag == local_etag(status)


def test_the_etag_follows_the_file(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    before = next(iter(list_source(str(tmp_path)))).etag
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert next(iter(list_source(str(tmp_path)))).etag == "1-5" != before


def test_hidden_files_folders_and_specials_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.png", ".b.png", ".git/c.png", "d/.DS_Store")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert paths_of(tmp_path) == ["a.png"]


def test_a_hidden_folder_in_the_path_to_the_source_does_not_hide_it(tmp_path: Path) -> None:
    make(tmp_path, ".cache/data/a.png")
    assert paths_of(tmp_path / ".cache/data") == ["a.png"]


def test_links_to_folders_end_and_repeat_nothing(tmp_path: Path) -> None:
    archive, outside = tmp_path / "archive", tmp_path / "outside"
    make(archive, "real/a.png")
    make(outside, "b.png")
    (archive / "real/loop").symlink_to(archive)
    (archive / "again").symlink_to(archive / "real")
    (archive / "out1").symlink_to(outside)
    (archive / "out2").symlink_to(outside)
    (outside / "back").symlink_to(archive)
    (archive / "c.png").symlink_to(outside / "b.png")
    assert paths_of(archive) == ["c.png", "out1/b.png", "real/a.png"]


def test_one_file_is_a_source(tmp_path: Path) -> None:
    make(tmp_path, "a.npz", "b.npz")
    assert [file.uri for file in list_source(str(tmp_path / "a.npz"))] == [str(tmp_path / "a.npz")]


def test_a_relative_source_gives_absolute_uris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "x/a.png")
    monkeypatch.chdir(tmp_path)
    assert next(iter(list_source("./x/"))).uri == str(tmp_path / "x/a.png")
    assert source_root("file:///a/b/../c/") == "/a/c"
    assert source_root("~/x") == f"{Path.home()}/x"


@pytest.mark.parametrize("empty", ["none", "folders", "hidden"])
def test_an_empty_source_is_an_error(tmp_path: Path, empty: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    if empty == "hidden":
        make(tmp_path, ".hidden")
    source = tmp_path / "a/b" if empty == "none" else tmp_path
    with pytest.raises(SourceError, match="no files"):
        paths_of(source)


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist") as error:
        paths_of(tmp_path / "nothing")
    assert "mounted" in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_can_not_be_read_ends_the_listing(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b").chmod(0)
    with pytest.raises(SourceError, match="can't be read") as error:
        paths_of(tmp_path)
    (tmp_path / "b").chmod(0o700)
    assert f"({tmp_path})" in str(error.value)


def test_what_goes_during_a_listing_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a.png", "b.png", "c/1.png", "d/2.png", "e/3.png")
    files = list_source(str(tmp_path))
    assert next(files).path == "a.png"
    (tmp_path / "b.png").unlink()
    shutil.rmtree(tmp_path / "c")
    scandir = os.scandir

    def too_late(folder: str) -> object:
        if folder.endswith("/d"):
            Path(folder).rename(tmp_path / "f")
        return scandir(folder)

    monkeypatch.setattr("cluster.sources.os.scandir", too_late)
    assert [file.path for file in files] == ["e/3.png"]


@pytest.mark.parametrize("replaced", [False, True], ids=["gone", "another in its place"])
def test_files_do_not_go_with_the_source_itself(tmp_path: Path, replaced: bool) -> None:
    """As when its disk is taken away: what is not there now is not deleted."""
    archive = tmp_path / "archive"
    make(archive, "a.png", "b.png", "c/1.png")
    files = list_source(str(archive))
    assert next(files).path == "a.png"
    archive.rename(tmp_path / "elsewhere")
    if replaced:
        archive.mkdir()
    with pytest.raises(SourceError, match="No such file or directory"):
        list(files)


def test_no_name_of_a_folder_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a/1.png", "a/DOE^JANE/2.png")
    scandir = os.scandir

    def failing(folder: str) -> object:
        if folder.endswith("JANE"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr("cluster.sources.os.scandir", failing)
    with pytest.raises(SourceError, match="Permission denied") as error:
        paths_of(tmp_path)
    assert "at depth 2 below the source" in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "JANE" not in str(error.value)
    assert f"{tmp_path}/a" not in str(error.value)


def test_reads_one_file_or_says_why_not(tmp_path: Path) -> None:
    make(tmp_path, "m.csv")
    assert read_source(str(tmp_path / "m.csv")) == b"m.csv"
    with pytest.raises(SourceError, match="does not exist"):
        read_source(str(tmp_path / "n.csv"))
    with pytest.raises(SourceError, match="Is a directory"):
        read_source(str(tmp_path))


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"archive-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def put(bucket: str, *keys: str) -> None:
    client = boto3.client("s3")
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())


ODD_NAMES = ("a b (1).png", "50%.png", "ä.png", "x#y?.png", "t~id.png", "p+q&r=s.png")


@pytest.mark.s3
def test_lists_a_prefix_and_every_name_can_be_fetched(bucket: str) -> None:
    put(bucket, "cxr/b/2.png", "cxr/a.png", "cxr/.hidden", "cxr2/no.png", "top.png")
    put(bucket, *(f"cxr/odd/{name}" for name in ODD_NAMES))
    files = list(list_source(f"s3://{bucket}/cxr/"))
    expected = ["a.png", "b/2.png", *sorted(f"odd/{name}" for name in ODD_NAMES)]
    assert [file.path for file in files] == expected
    store = open_storage(f"s3://{bucket}")
    for file in files:
        key = file.uri.removeprefix(f"s3://{bucket}/")
        data, entry = store.get_tagged(key)
        assert data.decode() == f"cxr/{file.path}"
        assert (entry.etag, entry.bytes) == (file.etag, file.bytes)


@pytest.mark.s3
def test_lists_a_whole_bucket_over_many_pages(bucket: str) -> None:
    # Straight into the server's memory: a page of S3 holds 1,000 names.
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for number in range(1100):
        backend.put_object(bucket, f"{number:04d}.png", b"")
    assert len(paths_of(f"s3://{bucket}")) == 1100


@pytest.mark.s3
def test_folder_markers_are_no_files(bucket: str) -> None:
    put(bucket, "cxr/a.png")
    boto3.client("s3").put_object(Bucket=bucket, Key="cxr/", Body=b"")
    boto3.client("s3").put_object(Bucket=bucket, Key="cxr/sub/", Body=b"")
    put(bucket, "cxr/sub/b.png")
    assert paths_of(f"s3://{bucket}/cxr") == ["a.png", "sub/b.png"]


@pytest.mark.s3
def test_missing_buckets_and_empty_prefixes_are_errors(bucket: str) -> None:
    with pytest.raises(SourceError, match="can't be listed"):
        paths_of("s3://no-such-bucket/x")
    with pytest.raises(SourceError, match="no files"):
        paths_of(f"s3://{bucket}/nothing")
    with pytest.raises(SourceError, match="no bucket"):
        paths_of("s3://")


@pytest.mark.s3
@pytest.mark.parametrize("key", ["cxr//DOE.png", "cxr/DOE//", "cxr/./DOE.png", "cxr/../DOE.png"])
def test_keys_that_can_not_be_named_are_told_as_the_cause(bucket: str, key: str) -> None:
    put(bucket, "cxr/a.png", key)
    with pytest.raises(SourceError, match=r"empty part \(//\).*aws s3 mv") as error:
        paths_of(f"s3://{bucket}/cxr")
    assert "DOE" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.s3
def test_reads_one_object(bucket: str) -> None:
    put(bucket, "meta/m.csv")
    assert read_source(f"s3://{bucket}/meta/m.csv") == b"meta/m.csv"
    with pytest.raises(SourceError, match="does not exist"):
        read_source(f"s3://{bucket}/meta/none.csv")


@pytest.mark.s3
def test_one_object_is_looked_at_as_it_is_listed(bucket: str) -> None:
    put(bucket, "meta/m.csv", "meta/m.csv.old", "top.csv")
    listed = {file.uri: file for file in list_source(f"s3://{bucket}")}
    for name in ("meta/m.csv", "top.csv"):
        uri = f"s3://{bucket}/{name}"
        found = head_source(uri)
        assert (found.path, found.uri) == (name.rpartition("/")[2], uri)
        assert (found.bytes, found.etag) == (len(name), listed[uri].etag)
    with pytest.raises(SourceError, match="does not exist"):
        head_source(f"s3://{bucket}/meta/none.csv")


def test_one_file_is_looked_at_as_it_is_listed(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_bytes(b"abc")
    assert [head_source(str(file))] == list(list_source(str(file)))
    with pytest.raises(SourceError, match="does not exist"):
        head_source(str(tmp_path / "n.csv"))
