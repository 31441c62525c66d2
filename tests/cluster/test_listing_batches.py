"""Listings as columns: the same files as one by one, on disk and on S3, in batches of any size."""

import os
from pathlib import Path

import boto3
import pytest

from cluster import listing as module
from cluster.sources import list_batches, list_source
from schemas.errors import SourceError
from schemas.protocols import LISTING


def listed(uri: str) -> list[tuple[bytes, bytes, int, str]]:
    rows: list[tuple[bytes, bytes, int, str]] = []
    for batch in list_batches(uri):
        assert batch.schema == LISTING
        assert batch.num_rows > 0
        rows += zip(*(column.to_pylist() for column in batch), strict=True)
    return rows


def one_by_one(uri: str) -> list[tuple[bytes, bytes, int, str]]:
    return [
        (os.fsencode(one.uri), os.fsencode(one.path), one.bytes, one.etag)
        for one in list_source(uri)
    ]


@pytest.mark.parametrize("size", [1, 2, 8_192])
def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("cluster.sources._BATCH_FILES", size)
    for name in (b"a.png", b"b/c.png", b"b/\xff.png", b".hidden"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name)
    found = listed(str(tmp_path))
    assert found == one_by_one(str(tmp_path))
    assert [path for _, path, _, _ in found] == [b"a.png", b"b/c.png", b"b/\xff.png"]
    assert [size for _, _, size, _ in found] == [5, 7, 7]


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no files"):
        listed(str(tmp_path))


@pytest.mark.s3
@pytest.mark.parametrize("size", [1, 2, 8_192])
def test_a_prefix(s3_root: str, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Folder markers are known by the next object, which may come in the next batch."""
    monkeypatch.setattr(module, "_COLUMN_ROWS", size)
    bucket = s3_root.removeprefix("s3://").partition("/")[0]
    client = boto3.client("s3")
    empty = ("in/", "in/sub/", "in/sub/deep/", "in/nothing.png", "in/left/")
    full = ("in/a ä.png", "in/sub/deep/1.png", "in/sub/.hidden/2.png", "in/.x", "inner/no.png")
    for key in (*empty, *full):
        client.put_object(Bucket=bucket, Key=key, Body=b"" if key in empty else key.encode())
    found = listed(f"s3://{bucket}/in/")
    assert found == one_by_one(f"s3://{bucket}/in")
    # A marker of a folder that holds nothing can't be told from an empty file.
    assert [(path.decode(), size) for _, path, size, _ in found] == [
        ("a ä.png", 11), ("left", 0), ("nothing.png", 0), ("sub/deep/1.png", 17),
    ]  # fmt: skip
    assert found[0][0] == f"s3://{bucket}/in/a ä.png".encode()
    assert found[0][3] == client.head_object(Bucket=bucket, Key="in/a ä.png")["ETag"]


@pytest.mark.s3
def test_a_bucket_without_such_a_prefix(s3_root: str) -> None:
    bucket = s3_root.removeprefix("s3://").partition("/")[0]
    with pytest.raises(SourceError, match="holds no files"):
        listed(f"s3://{bucket}/nowhere")
