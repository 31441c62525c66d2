import os
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cluster.fetch import Fetcher
from cluster.sources import list_source
from schemas.errors import KeyFileError, RejectedImage
from schemas.reasons import RejectReason
from workers.content import content_id
from workers.pseudonyms import Pseudonymizer


def rows_of(folder: str | Path) -> pa.Table:
    files = list(list_source(str(folder)))
    return pa.table(
        {
            "uri": [one.uri for one in files],
            "etag": [one.etag for one in files],
            "bytes": [one.bytes for one in files],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (archive / name).write_bytes(name.encode() * 10)
    return archive


def reason(blob: object) -> RejectReason:
    assert isinstance(blob, RejectedImage)
    return blob.reason


def test_bytes_in_the_order_of_the_rows(folder: Path) -> None:
    rows = rows_of(folder).take([2, 0, 2])
    blobs = Fetcher().fetch(rows)
    assert blobs == [b"c.png" * 10, b"a.png" * 10, b"c.png" * 10]
    assert blobs[0] is blobs[2]


def test_what_changed_or_vanished_since_planning_is_told_apart(folder: Path) -> None:
    rows = rows_of(folder)
    (folder / "a.png").write_bytes(b"longer than before" * 9)
    (folder / "b.png").unlink()
    # Same size, other time: still another file.
    os.utime(folder / "c.png", ns=(1, 1))
    blobs = Fetcher().fetch(rows)
    assert [reason(one) for one in blobs] == [
        RejectReason.CHANGED_DURING_RUN,
        RejectReason.GONE_DURING_RUN,
        RejectReason.CHANGED_DURING_RUN,
    ]


def test_what_was_only_touched_is_still_the_image_that_was_planned(folder: Path) -> None:
    rows = rows_of(folder)
    ids = [content_id(Path(uri).read_bytes()) for uri in rows["uri"].to_pylist()]
    rows = rows.append_column("image_id", pa.array([ids[0], f"{ids[1]}.3", ids[2]]))
    os.utime(folder / "a.png", ns=(1, 1))
    os.utime(folder / "b.png", ns=(1, 1))
    (folder / "c.png").write_bytes(b"d.png" * 10)
    same, frame, other = Fetcher().fetch(rows)
    assert (same, frame) == (b"a.png" * 10, b"b.png" * 10)
    assert reason(other) is RejectReason.CHANGED_DURING_RUN


def test_rows_that_need_no_bytes_read_nothing(folder: Path) -> None:
    rows = rows_of(folder).append_column("read", pa.array([True, False, True]))
    (folder / "b.png").unlink()
    assert Fetcher().fetch(rows) == [b"a.png" * 10, b"", b"c.png" * 10]
    assert Fetcher().fetch(rows, without=frozenset({0}))[0] == b""


def test_a_folder_where_a_file_was_is_unreadable(folder: Path) -> None:
    rows = rows_of(folder).slice(0, 1)
    (folder / "a.png").unlink()
    (folder / "a.png").mkdir()
    assert reason(Fetcher().fetch(rows)[0]) is RejectReason.UNREADABLE


def test_masked_uris_are_found_with_the_key_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (folder / "PAT0001-left.png").write_bytes(b"pixels")
    rows = rows_of(folder)
    clear = [uri for uri in rows["uri"].to_pylist() if "PAT0001" in uri]
    masked = Pseudonymizer.from_key_file(create=True).mask(clear[0], ["PAT0001"])
    assert "PAT0001" not in masked
    etag = rows.filter(pc.equal(rows["uri"], clear[0]))["etag"][0].as_py()
    row = pa.table({"uri": [masked], "etag": [etag]})
    assert Fetcher().fetch(row) == [b"pixels"]
    monkeypatch.setenv("RAYWARD_KEY_FILE", str(tmp_path / "no-such-key"))
    with pytest.raises(KeyFileError):
        Fetcher().fetch(row)


@pytest.mark.s3
def test_objects_are_compared_by_entity_tag(s3_root: str) -> None:
    client, bucket = boto3.client("s3"), s3_root.split("/")[2]
    for name in ("a.png", "b.png", "c.png"):
        client.put_object(Bucket=bucket, Key=f"archive/{name}", Body=name.encode())
    rows = rows_of(f"s3://{bucket}/archive")
    assert Fetcher().fetch(rows) == [b"a.png", b"b.png", b"c.png"]
    client.put_object(Bucket=bucket, Key="archive/a.png", Body=b"A.PNG")
    client.delete_object(Bucket=bucket, Key="archive/b.png")
    blobs = Fetcher().fetch(rows)
    assert reason(blobs[0]) is RejectReason.CHANGED_DURING_RUN
    assert reason(blobs[1]) is RejectReason.GONE_DURING_RUN
    assert blobs[2] == b"c.png"
