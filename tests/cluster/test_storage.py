import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.credentials import Credentials, ReadOnlyCredentials

from cluster.storage import open_storage, peek_storage
from schemas.errors import LakeError


def test_bytes_come_back(any_root: str) -> None:
    storage = open_storage(any_root)
    storage.put("a/b.bin", b"\x00\x01")
    storage.put("a/b.bin", b"\x02")
    assert storage.get("a/b.bin") == b"\x02"
    data, entry = storage.get_tagged("a/b.bin")
    assert (data, entry.bytes, entry.path) == (b"\x02", 1, "a/b.bin")
    assert entry.etag
    assert abs(entry.modified_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_name_is_given_once(any_root: str) -> None:
    storage = open_storage(any_root)
    assert storage.put_new("one", b"first")
    assert not storage.put_new("one", b"second")
    assert storage.get("one") == b"first"
    assert storage.creates_atomically


def test_one_of_many_creators_wins(any_root: str) -> None:
    storage = open_storage(any_root)
    won: list[int] = []

    def create(number: int) -> None:
        if storage.put_new("contested", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.get("contested") == str(won[0]).encode()


def test_missing_objects(any_root: str) -> None:
    storage = open_storage(any_root)
    assert storage.head("nothing") is None
    storage.delete("nothing")
    with pytest.raises(FileNotFoundError):
        storage.get("nothing")


def test_a_listing_shows_all_below_a_folder(any_root: str) -> None:
    storage = open_storage(any_root)
    names = [f"runs/{number:04d}.json" for number in range(1200)]  # more than one page of S3
    for name in names[:20] if any_root.startswith("s3") else names:
        storage.put(name, b"x")
    storage.put("runs-other/1.json", b"x")
    found = sorted(entry.path for entry in storage.list("runs"))
    assert found == (names[:20] if any_root.startswith("s3") else names)
    assert storage.get_many(found[:3]) == [b"x"] * 3


def test_looking_makes_nothing(tmp_path: Path) -> None:
    missing = tmp_path / "not-there"
    storage = peek_storage(str(missing))
    assert list(storage.list()) == []
    assert not missing.exists()


def test_other_schemes_are_refused() -> None:
    with pytest.raises(LakeError, match="No such kind of store"):
        open_storage("gs://bucket/lake")


def test_s3_without_credentials_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(LakeError, match="AWS_ACCESS_KEY_ID"):
        open_storage("s3://bucket/lake")


@pytest.mark.s3
def test_secrets_stay_out_of_repr(s3_root: str) -> None:
    assert "test-secret" not in repr(open_storage(s3_root))


def test_what_was_put_under_a_lost_answer_is_claimed(any_root: str) -> None:
    storage = open_storage(any_root)
    assert storage.claim("one", b"mine")
    assert storage.claim("one", b"mine")
    assert not storage.claim("one", b"theirs")


@pytest.mark.s3
def test_commits_use_the_credentials_of_the_moment(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = iter(["at the first commit", "at the second"])

    def frozen(credentials: Credentials) -> ReadOnlyCredentials:
        return ReadOnlyCredentials("key", "secret", next(tokens))

    monkeypatch.setattr(Credentials, "get_frozen_credentials", frozen)
    storage = open_storage(s3_root)
    assert storage.delta_options["AWS_SESSION_TOKEN"] == "at the first commit"
    assert storage.delta_options["AWS_SESSION_TOKEN"] == "at the second"
