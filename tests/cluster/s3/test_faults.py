"""Objects through a store and a network that fail: every call succeeds or says so, none lies."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from cluster.fetch import Fetcher
from cluster.lake.store import LakeStore
from cluster.objects import DamagedBodyError
from cluster.prepared import PreparedReader
from cluster.sources import list_source
from cluster.storage import STORE_ERRORS, open_storage
from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from tests.cluster.lake.toy import contents, ids, run_toy
from tests.cluster.s3.conftest import Weather
from tests.cluster.s3.proxy import CONFLICT, FAULTS
from tests.jobs.seeding import seed
from workers.pixels.encoding import decode, encode

pytestmark = pytest.mark.s3


@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_outlasts_every_fault(weather: Weather, fault: str) -> None:
    storage = open_storage(f"{weather.root}/{fault}")
    weather.behaviour.faults, weather.behaviour.share = (fault,), 0.2
    for number in range(8):
        name, data = f"some/{number}", bytes([number]) * 3000
        storage.put(name, data)
        assert storage.get(name) == data
        entry = storage.head(name)
        assert entry is not None
        assert entry.bytes == 3000
        assert storage.claim(f"claimed/{number}", data)
        assert not storage.claim(f"claimed/{number}", b"another's")
        assert storage.get_range(name, 10, 20) == data[10:20]
    assert {one.path for one in storage.list("some")} == {f"some/{n}" for n in range(8)}
    for number in range(8):
        storage.delete(f"some/{number}")
    assert list(storage.list("some")) == []
    assert weather.proxy.met[fault] >= 5


def test_a_creation_whose_answer_got_lost_is_known_as_ones_own(weather: Weather) -> None:
    storage = open_storage(weather.root)
    weather.behaviour.faults, weather.behaviour.share = ("reset_after",), 1.0
    weather.behaviour.only, weather.behaviour.most = "PUT .*/new", 1
    assert storage.put_new("new", b"ours")
    assert weather.proxy.met == {"reset_after": 1}
    assert storage.get("new") == b"ours"


def test_a_lost_answer_does_not_take_anothers_object_for_ours(weather: Weather) -> None:
    storage = open_storage(weather.root)
    storage.put("new", b"theirs")
    weather.behaviour.faults, weather.behaviour.share = ("reset_before",), 1.0
    weather.behaviour.only, weather.behaviour.most = "PUT .*/new", 1
    assert not storage.put_new("new", b"ours")
    assert storage.get("new") == b"theirs"


def test_a_conflict_that_comes_to_nothing_is_tried_again(weather: Weather) -> None:
    storage = open_storage(weather.root)
    weather.behaviour.faults, weather.behaviour.share = (CONFLICT,), 1.0
    weather.behaviour.only, weather.behaviour.most = "PUT .*/new", 2
    assert storage.claim("new", b"ours")
    assert weather.proxy.met == {CONFLICT: 2}
    assert storage.get("new") == b"ours"


def test_a_conflict_with_one_who_won_is_lost(weather: Weather) -> None:
    storage = open_storage(weather.root)
    storage.put("new", b"theirs")
    weather.proxy.forget()
    weather.behaviour.faults, weather.behaviour.share = (CONFLICT,), 1.0
    weather.behaviour.only = "PUT .*/new"
    assert not storage.put_new("new", b"ours")
    assert weather.proxy.requests["PUT"] == 1
    assert storage.get("new") == b"theirs"


def test_a_conflict_that_stays_is_an_error(weather: Weather) -> None:
    storage = open_storage(weather.root)
    weather.behaviour.faults, weather.behaviour.share = (CONFLICT,), 1.0
    weather.behaviour.only = "PUT .*/new"
    with pytest.raises(STORE_ERRORS):
        storage.claim("new", b"ours")
    assert weather.proxy.met == {CONFLICT: 5}


def test_a_listing_that_breaks_off_goes_on(weather: Weather) -> None:
    storage = open_storage(weather.root)
    names = [f"pages/{number:04d}" for number in range(1050)]  # two pages of S3
    bucket, _, prefix = weather.root.removeprefix("s3://").partition("/")
    for name in names:  # past the network, which would take longer than all the rest
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, f"{prefix}/{name}", b"")
    weather.behaviour.faults, weather.behaviour.share = ("truncated",), 1.0
    weather.behaviour.only = "GET .*(continuation-token|start-after)"
    weather.behaviour.most = 2
    assert [one.path for one in storage.list("pages")] == names
    assert weather.proxy.met["truncated"] == 2
    # The first page, the second one cut short twice, and what is left after the first.
    assert len([one for one in weather.proxy.seen if "list-type=2" in one]) <= 6


def test_large_objects_go_in_parts_and_come_back(weather: Weather) -> None:
    storage = open_storage(weather.root)
    data = bytes(range(256)) * (17 * 2**12)  # 17 MiB: three parts
    weather.behaviour.share = 0.2
    storage.put("large.bin", data)
    assert storage.get("large.bin") == data
    parts = {one for one in weather.proxy.seen if "partNumber=" in one}
    assert len(parts) == 3
    assert weather.proxy.met.total() > 0


def test_a_body_that_is_short_but_well_formed_is_noticed(weather: Weather) -> None:
    storage = open_storage(weather.root)
    storage.put("object", b"0123456789")
    weather.behaviour.shortened = "GET .*/object"
    with pytest.raises(DamagedBodyError):
        storage.get("object")
    weather.behaviour.shortened = ""
    assert storage.get("object") == b"0123456789"


def test_one_damaged_body_is_fetched_again(
    weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cluster.storage

    storage = open_storage(weather.root)
    storage.put("object", b"0123456789")
    bodies = itertools.chain([b"0123456780"], itertools.repeat(None))
    get = cluster.storage.obstore.get

    class Damaged:
        def __init__(self, result: object) -> None:
            self._result, self.meta = result, result.meta  # type: ignore[attr-defined]

        def bytes(self) -> bytes:
            return next(bodies) or bytes(self._result.bytes())  # type: ignore[attr-defined]

    monkeypatch.setattr(cluster.storage.obstore, "get", lambda *a: Damaged(get(*a)))
    assert storage.get("object") == b"0123456789"
    assert storage._etags_are_md5


def test_tags_that_are_no_md5_are_learned(
    weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of objects encrypted with a key of the user's, whose tags look like an MD5."""
    import cluster.storage

    storage = open_storage(weather.root)
    storage.put("object", b"0123456789")
    get = cluster.storage.obstore.get

    class Encrypted:
        def __init__(self, result: object) -> None:
            self.meta = {**result.meta, "e_tag": '"' + "a" * 32 + '"'}  # type: ignore[attr-defined]
            self.bytes = result.bytes  # type: ignore[attr-defined]

    monkeypatch.setattr(cluster.storage.obstore, "get", lambda *a: Encrypted(get(*a)))
    assert storage.get("object") == b"0123456789"
    assert not storage._etags_are_md5
    weather.proxy.forget()
    assert storage.get("object") == b"0123456789"
    assert weather.proxy.requests == {"GET": 1}


def test_a_store_that_stays_down_is_an_error(
    weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    monkeypatch.setattr("cluster.s3._MOST_RETRIES", 1)
    monkeypatch.setattr("cluster.s3._FIRST_DELAY", timedelta(milliseconds=1))
    storage = open_storage(weather.root)
    weather.behaviour.faults, weather.behaviour.share = ("slow_down",), 1.0
    with pytest.raises(STORE_ERRORS):
        storage.get("object")
    assert weather.proxy.requests["GET"] == 2 * 5  # each of five attempts is repeated once


@pytest.mark.slow
def test_a_run_through_faults_leaves_the_rows_of_one_without(
    weather: Weather, tmp_path: Path
) -> None:
    """Plans, receipts, commits, queries: the toy's whole life, twice, against a lake on disk."""
    run_toy(str(tmp_path), ids(20))
    weather.behaviour.share = 0.08
    for images in (20, 26):
        run_toy(str(tmp_path), ids(images))
        run_toy(weather.root, ids(images))
        assert contents(weather.root) == contents(str(tmp_path))
    assert set(weather.proxy.met) == set(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["reset_after", "reset_before", CONFLICT])
def test_a_commit_whose_answer_got_lost_is_made_once(weather: Weather, fault: str) -> None:
    run_toy(weather.root, ids(7))
    weather.behaviour.faults, weather.behaviour.share = (fault,), 1.0
    weather.behaviour.only, weather.behaviour.most = "PUT .*_delta_log/0+2.json", 4
    run_toy(weather.root, ids(14))
    assert weather.proxy.met[fault] >= 3
    found = contents(weather.root)
    scored = [row["image_id"] for row in found["predictions"]]
    assert sorted(scored) == [one for one in ids(14) if int(one, 16) % 5 != 4]
    assert len(found["rejects"]) == 2


def test_prepared_pixels_are_read_by_row_groups(weather: Weather) -> None:
    lake = LakeStore.open(weather.root, create=True)
    noise = np.random.default_rng(0).integers(0, 256, (512, 64, 64), np.uint8)
    rows = [
        {
            "image_id": f"{number:032x}",
            "recipe": "r",
            "height": 64,
            "width": 64,
            "pixels": encode(noise[number]),
            "geometry": "{}",
        }
        for number in range(512)
    ]
    seed(lake, {"prepared": rows})
    (entry,) = (one for one in lake.storage.list("tables/prepared") if "_delta" not in one.path)
    wanted = [f"{number:032x}" for number in (130, 131, 190)]  # the third group of eight
    weather.proxy.forget()
    found = PreparedReader(weather.root).read(entry.path, wanted)
    assert sorted(found) == wanted
    assert (decode(found[wanted[0]].data, 64, 64) == noise[130]).all()
    read = [
        int(last) - int(first) + 1
        for path, asked in weather.proxy.ranges
        if "tables/prepared" in path
        for first, last in [asked.removeprefix("bytes=").split("-")]
    ]
    # The footer and one group; whole, it would be all of it.
    assert sum(read) < entry.bytes / 4
    assert len(read) <= 4
    weather.proxy.forget()
    assert PreparedReader(weather.root).read(f"{entry.path}-gone", wanted) == {}


def test_a_file_that_can_not_be_read_whole_is_a_reject(weather: Weather) -> None:
    bucket = weather.root.removeprefix("s3://").partition("/")[0]
    open_storage(f"s3://{bucket}").put("archive/a.png", b"0123456789")
    (file,) = list_source(f"s3://{bucket}/archive")
    rows = pa.table({"uri": [file.uri], "etag": [file.etag]})
    weather.behaviour.shortened = "GET .*a.png"
    (blob,) = Fetcher().fetch(rows)
    assert isinstance(blob, RejectedImage)
    assert (blob.reason, blob.detail) == (RejectReason.UNREADABLE, "DamagedBodyError")
    weather.behaviour.shortened = ""
    assert Fetcher().fetch(rows) == [b"0123456789"]
