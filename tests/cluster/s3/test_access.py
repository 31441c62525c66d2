"""How S3 is reached: endpoints, encryption, credentials that expire, stores that overwrite."""

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.doctor.check import State
from cluster.doctor.lake import check_lake
from cluster.lake.commit import ensure_table, open_table
from cluster.lake.files import write_rows
from cluster.lake.leases import hold
from cluster.lake.store import LakeStore
from cluster.s3 import S3Access
from cluster.storage import open_storage
from schemas.errors import LakeError
from schemas.tables import rows_of
from tests.cluster.s3.conftest import Weather

pytestmark = pytest.mark.s3

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def write_profile(home: Path, text: str) -> None:
    folder = home / ".aws"
    folder.mkdir(exist_ok=True)
    (folder / "config").write_text(text)


def test_a_profile_names_endpoint_region_and_keys(
    weather: Weather, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*KEYS, "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    write_profile(
        own_home,
        f"""
[profile archive]
region = eu-central-1
aws_access_key_id = of-the-profile
aws_secret_access_key = hidden
services = here
[services here]
s3 =
  endpoint_url = {weather.proxy.endpoint}
""",
    )
    monkeypatch.setenv("AWS_PROFILE", "archive")
    access = S3Access.standard()
    assert (access.region, access.endpoint) == ("eu-central-1", weather.proxy.endpoint)
    open_storage(weather.root).put("object", b"x")
    ensure_table(open_storage(weather.root), "models")
    assert set(weather.proxy.keys) == {"of-the-profile"}
    # By path, the bucket is part of the path and not of the host.
    assert all(one.split(" ")[1].startswith("/bucket-") for one in weather.proxy.seen)
    assert "hidden" not in repr(access) + repr(open_storage(weather.root))


PROFILE = """
[profile archive]
region = eu-central-1
aws_access_key_id = of-the-profile
aws_secret_access_key = hidden
endpoint_url = {}
"""


def test_nothing_else_in_the_environment_counts(
    weather: Weather, own_home: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*KEYS, "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    write_profile(own_home, PROFILE.format(weather.proxy.endpoint))
    monkeypatch.setenv("AWS_PROFILE", "archive")
    monkeypatch.setenv("AWS_ENDPOINT", s3_endpoint)
    monkeypatch.setenv("AWS_BUCKET_NAME", "another")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_UNSIGNED_PAYLOAD", "true")
    monkeypatch.setenv("AWS_S3_EXPRESS", "true")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    storage = open_storage(weather.root)
    storage.put("object", b"x")
    assert len(weather.proxy.seen) == 1
    ensure_table(storage, "models")
    assert len(weather.proxy.seen) > 3
    # Each of them was signed, with the keys of the profile, for this bucket and over its payload.
    assert weather.proxy.keys == ["of-the-profile"] * len(weather.proxy.seen)
    assert all(one.split(" ")[1].startswith("/bucket-") for one in weather.proxy.seen)
    assert weather.proxy.unsigned == []


@pytest.mark.parametrize("name", ["AWS_SESSION_TOKEN", "AWS_TOKEN"])
def test_a_token_of_other_credentials_is_refused(
    weather: Weather, own_home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A profile's keys for good, and what an earlier session left behind."""
    for one in (*KEYS, "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(one, raising=False)
    write_profile(own_home, PROFILE.format(weather.proxy.endpoint))
    monkeypatch.setenv("AWS_PROFILE", "archive")
    monkeypatch.setenv(name, "stale")
    with pytest.raises(LakeError, match=f"unset {name}") as error:
        ensure_table(open_storage(weather.root), "models")
    assert "stale" not in str(error.value)
    monkeypatch.delenv(name)
    ensure_table(open_storage(weather.root), "models")
    assert weather.proxy.tokens == set()


def test_a_token_of_the_credentials_goes_with_them(
    weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "ours")
    monkeypatch.setenv("AWS_TOKEN", "stale")
    storage = open_storage(weather.root)
    storage.put("object", b"x")
    ensure_table(storage, "models")
    assert weather.proxy.tokens == {"ours"}


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("eu-central-1", "https://s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn"),
        ("xx-nowhere-1", "https://s3.xx-nowhere-1.amazonaws.com"),
    ],
)
def test_an_endpoint_that_is_to_be_ignored_is_ignored_by_both_clients(
    weather: Weather, monkeypatch: pytest.MonkeyPatch, region: str, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", weather.proxy.endpoint)
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    access = S3Access.standard()
    assert access.endpoint == endpoint
    found = access.store("s3://bucket/prefix").config
    assert [one for name, one in found.items() if "endpoint" in name] == [endpoint] * 2
    options = access.delta_options()
    assert {options["AWS_ENDPOINT_URL"], options["AWS_ENDPOINT_URL_S3"]} == {endpoint}


def test_an_unknown_profile_is_named_as_the_cause(
    weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(LakeError, match="AWS_PROFILE"):
        open_storage(weather.root)


@pytest.mark.parametrize(
    ("endpoint", "allowed", "refused"),
    [
        ("http://s3.hospital.example:9000", "", True),
        ("http://s3.hospital.example:9000", "false", True),
        ("http://s3.hospital.example:9000", "true", False),
        ("https://s3.hospital.example", "", False),
        ("http://127.0.0.1:9000", "", False),
        ("http://[::1]:9000", "", False),
        ("http://localhost:9000", "", False),
    ],
)
def test_plain_http_to_another_machine_is_allowed_by_name_only(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, allowed: str, refused: bool
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", allowed)
    if refused:
        with pytest.raises(LakeError, match="AWS_ALLOW_HTTP"):
            S3Access.standard()
    else:
        options = S3Access.standard().delta_options()
        assert options["AWS_ALLOW_HTTP"] == ("true" if endpoint.startswith("http:") else "false")


def test_credentials_that_expire_are_renewed_while_a_storage_is_open(
    weather: Weather, own_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    # Each call of the process, as SSO and role providers do it, gives keys for a short time: what
    # is left of it is below what botocore keeps in hand, so every use asks for new ones.
    script = tmp_path / "give_keys.py"
    script.write_text(
        f"""
import json, pathlib
calls = pathlib.Path({str(tmp_path / "calls")!r})
number = int(calls.read_text()) + 1 if calls.exists() else 1
calls.write_text(str(number))
print(json.dumps({{"Version": 1, "AccessKeyId": f"key-{{number}}", "SecretAccessKey": "hidden",
  "SessionToken": "token", "Expiration": {_in_minutes(5)!r}}}))
"""
    )
    process = f"[default]\ncredential_process = {sys.executable} {script}\n"
    write_profile(own_home, process)
    monkeypatch.setattr("cluster.s3._HELD_FOR", timedelta(minutes=-1))
    storage = open_storage(weather.root)
    storage.put("one", b"1")
    first = weather.proxy.keys[-1]
    assert first.startswith("key-")
    weather.behaviour.refused_keys.add(first)
    assert storage.get("one") == b"1"
    assert weather.proxy.keys[-1] != first
    weather.behaviour.refused_keys.add(weather.proxy.keys[-1])
    ensure_table(storage, "models")
    assert weather.proxy.keys[-1] not in weather.behaviour.refused_keys


def _in_minutes(count: float) -> str:
    return (datetime.now(UTC) + timedelta(minutes=count)).isoformat()


def test_a_store_without_conditional_puts_is_found_and_refused(weather: Weather) -> None:
    friendly = LakeStore.open(weather.root, create=True).storage
    weather.behaviour.dropped_headers = frozenset({"if-none-match"})
    checks = {one.name: one for one in check_lake(weather.root)}
    assert checks["lake writing"].state is State.FAIL
    assert "If-None-Match" in checks["lake writing"].remedy
    with pytest.raises(LakeError, match="If-None-Match"):
        LakeStore.open(f"{weather.root}/another", create=True)
    # A lake that was made through another way is refused as well, when work is to begin.
    store = LakeStore.open(weather.root)
    with pytest.raises(LakeError, match="only if there is none"), store.lease(("clean", "d")):
        pytest.fail("worked on")
    assert friendly.creates_atomically  # what was found out holds for a storage's life
    assert [one.path for one in friendly.list("_leases")] == []


def test_the_probe_outlasts_faults(weather: Weather) -> None:
    weather.behaviour.share = 0.3
    weather.behaviour.only = "_leases/.probe"
    for number in range(8):
        assert open_storage(f"{weather.root}/{number}").creates_atomically
    assert weather.proxy.met.total() >= 5


def test_two_commits_of_one_version_collide(
    weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delta's commits are create-only puts, whatever the environment says."""
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    storage = open_storage(weather.root)
    handles = [ensure_table(storage, "models") for _ in range(3)]
    for number, handle in enumerate(handles):
        rows = rows_of("models", [{"model_id": str(number), "name": "m", "version": number}])
        (file,) = write_rows(storage, "models", rows, run_id=f"r{number}", shard="0")
        handle.create_write_transaction(
            [file.add_action("models")], mode="append", schema=handle.schema(), partition_by=[]
        )
    found = open_table(storage, "models")
    assert found is not None
    assert found.version() == 3
    assert len(found.file_uris()) == 3
    logged = "PUT (.*/_delta_log/[0-9]+.json)"
    puts = [found[1] for one in weather.proxy.seen if (found := re.match(logged, one))]
    assert len(puts) >= 4
    assert puts == [one for one in weather.proxy.creations if "_delta_log" in one]


def test_a_lease_is_held_through_faults(weather: Weather) -> None:
    weather.behaviour.share = 0.1
    storage = open_storage(weather.root)
    for _ in range(4):
        with hold(storage, ("score", "m")) as lease:
            lease.check()
    weather.behaviour.share = 0.0
    left = sorted(one.path.rpartition("/")[2] for one in storage.list("_leases"))
    assert left == ["00000004.json", "00000004.released"]
