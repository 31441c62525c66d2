"""Tests of the shard function of ingest."""

import hashlib
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jobs.ingest.inputs import INPUTS
from schemas.errors import KeyFileError, RejectedImage
from schemas.plan import Blob, ShardResult
from schemas.reasons import RejectReason
from schemas.tables import TABLES
from workers.ingest import load
from workers.pixels.decode import open_image
from workers.pseudonyms import Pseudonymizer

SEEN_AT = "2026-11-21T08:00:00+00:00"


def png(value: int = 7) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((4, 6), value, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def key(own_home: Any) -> Pseudonymizer:
    return Pseudonymizer.from_key_file(create=True)


def params(key: Pseudonymizer, **changed: Any) -> dict[str, Any]:
    return {
        "dataset": "demo",
        "seen_at": SEEN_AT,
        "modality": "US",
        "subject": "decoder",
        "key_check": key.check,
        "numbering": None,
        "max_pixels": 10**6,
        "max_bytes": 10**6,
    } | changed


def row(key: Pseudonymizer, uri: str, size: int, **given: Any) -> dict[str, Any]:
    blank = dict.fromkeys(INPUTS.names)
    fixed = {"uri": key.seal(uri), "etag": "e1", "bytes": size, "read": True, "action": "read"}
    return blank | fixed | {"identifiers": []} | given


def known(uri: str, **changed: Any) -> dict[str, Any]:
    blank = {field.name: None for field in TABLES["images"].schema if field.name != "run_id"}
    facts = {"image_id": "0" * 32, "dataset": "demo", "uri": uri, "frame": 0, "etag": "e0"}
    return blank | facts | {"format": "png", "state": "present", "width": 3} | changed


def shard(
    key: Pseudonymizer, rows: list[dict[str, Any]], blobs: list[Blob], **changed: Any
) -> ShardResult:
    return load(params(key, **changed))(pa.Table.from_pylist(rows, schema=INPUTS), blobs)


def test_a_file_becomes_a_row(key: Pseudonymizer) -> None:
    data = png()
    result = shard(key, [row(key, "/a/b.png", len(data), label="x", age=3.5)], [data])
    assert (result.done, result.rejected, result.gone, result.facts) == (1, 0, 0, {"frames": 1})
    (image,) = result.tables["images"].to_pylist()
    assert image["image_id"] == hashlib.blake2b(data, digest_size=16).hexdigest()
    assert image["seen_at"].isoformat() == SEEN_AT
    expected = {
        "dataset": "demo", "uri": "/a/b.png", "frame": 0, "bytes": len(data), "etag": "e1",
        "format": "png", "modality": "US", "width": 6, "height": 4, "bits": 8, "channels": 1,
        "label": "x", "age": 3.5, "patient_id": None, "state": "present",
    }  # fmt: skip
    assert {name: image[name] for name in expected} == expected
    schema = TABLES["images"].schema
    assert result.tables["images"].schema.names == schema.names[:-1]


def test_the_same_inputs_give_the_same_rows(key: Pseudonymizer) -> None:
    data = png()
    rows = [row(key, f"/a/{number}.png", len(data)) for number in range(4)]
    whole = shard(key, rows, [data] * 4)
    parts = [shard(key, rows[:1], [data]), shard(key, rows[1:], [data] * 3)]
    joined = pa.concat_tables([one.tables["images"] for one in parts])
    assert whole.tables["images"].equals(joined)


def test_identifiers_are_masked_and_the_patient_is_a_pseudonym(key: Pseudonymizer) -> None:
    given = {"identifiers": [key.seal("pat9")], "patient_id": key.patient("pat9")}
    data = png()
    rows = [row(key, "/a/pat9/1.png", len(data), **given), row(key, "/a/pat9/2.png", 1, **given)]
    result = shard(key, rows, [data, b"x"])
    (image,) = result.tables["images"].to_pylist()
    (reject,) = result.tables["rejects"].to_pylist()
    assert image["patient_id"] == key.patient("pat9")
    for masked, uri in ((image["uri"], "/a/pat9/1.png"), (reject["uri"], "/a/pat9/2.png")):
        assert "pat9" not in masked
        assert masked.startswith("/a/~id-")
        assert key.reveal(masked) == uri


def test_every_kind_of_trouble_is_one_reject(
    key: Pseudonymizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = png()

    def failing(blob: bytes, *rest: Any) -> Any:
        if blob == b"defect":
            raise ZeroDivisionError("patient 4711")
        return open_image(blob, *rest)

    monkeypatch.setattr("workers.ingest.open_image", failing)
    blobs: list[Blob] = [
        data, b"", b"nonsense", b"defect", RejectedImage(RejectReason.CRASHED_WORKER, "twice"),
        RejectedImage(RejectReason.GONE_DURING_RUN),
    ]  # fmt: skip
    rows = [row(key, f"/{number}.png", 10) for number in range(len(blobs))]
    rows.append(row(key, "/6.png", 10**7, read=False))
    result = shard(key, rows, [*blobs, b""])
    assert (result.done, result.rejected) == (1, 6)
    rejects = result.tables["rejects"].to_pylist()
    assert [(one["uri"], one["reason"]) for one in rejects] == [
        ("/1.png", "empty_file"),
        ("/2.png", "unknown_format"),
        ("/3.png", "failed"),
        ("/4.png", "crashed_worker"),
        ("/5.png", "gone_during_run"),
        ("/6.png", "too_many_bytes"),
    ]
    assert rejects[2]["detail"] == "ZeroDivisionError"
    assert {(one["stage"], one["subject"], one["etag"]) for one in rejects} == {
        ("ingest", "decoder", "e1")
    }


@pytest.mark.parametrize(
    ("reason", "states"),
    [
        (RejectReason.CRASHED_WORKER, ["gone"]),
        (RejectReason.CHANGED_DURING_RUN, []),
        (RejectReason.UNREADABLE, []),
    ],
)
def test_an_image_is_gone_only_if_its_file_is_bad(
    key: Pseudonymizer, reason: RejectReason, states: list[str]
) -> None:
    changed = row(key, "/1.png", 10, known=[known("/1.png")])
    result = shard(key, [changed], [RejectedImage(reason)])
    images = result.tables["images"].to_pylist()
    assert [one["state"] for one in images] == states
    assert (result.done, result.rejected, result.gone) == (0, 1, 0)


def test_a_correction_copies_what_the_pixels_said(key: Pseudonymizer) -> None:
    given = {"action": "facts", "read": False, "label": "B", "known": [known("/1.png", label="A")]}
    result = shard(key, [row(key, "/1.png", 10, **given)], [b""])
    (image,) = result.tables["images"].to_pylist()
    assert (image["label"], image["width"], image["etag"], image["state"]) == (
        "B", 3, "e0", "present",
    )  # fmt: skip
    assert image["seen_at"].isoformat() == SEEN_AT
    assert (result.done, result.rejected, result.gone) == (1, 0, 0)


def test_what_was_masked_stays_masked_in_a_correction(key: Pseudonymizer) -> None:
    masked = key.mask("/pat9/1.dcm", ["pat9"])
    given = {"action": "facts", "read": False, "known": [known(masked, format="dicom")]}
    result = shard(key, [row(key, "/pat9/1.dcm", 10, **given)], [b""])
    assert result.tables["images"]["uri"].to_pylist() == [masked]


def test_a_gone_file_is_said_to_be_gone_frame_by_frame(key: Pseudonymizer) -> None:
    frames = [known("/1.npz", frame=number, format="npz") for number in range(3)]
    given = {"action": "gone", "read": False, "known": frames}
    result = shard(key, [row(key, "/1.npz", 0, **given)], [b""])
    images = result.tables["images"].to_pylist()
    assert [(one["frame"], one["state"]) for one in images] == [(n, "gone") for n in range(3)]
    assert (result.done, result.rejected, result.gone, result.facts) == (0, 0, 1, {"frames": 0})


def test_a_machine_without_the_right_key_refuses(key: Pseudonymizer) -> None:
    with pytest.raises(KeyFileError, match="another pseudonym key"):
        load(params(key, key_check="0" * 12))
