"""Objects through a store and a network that fail: every call succeeds or says so, none lies."""

import itertools

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from cluster.storage import DamagedBodyError, open_storage
from tests.cluster.s3.conftest import Weather
from tests.cluster.s3.proxy import FAULTS

pytestmark = pytest.mark.s3


@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_outlasts_every_fault(weather: Weather, fault: str) -> None:
    storage = open_storage(f"{weather.root}/{fault}")
    weather.behaviour.faults, weather.behaviour.share = (fault,), 0.15
    for number in range(12):
        name, data = f"some/{number}", bytes([number]) * 3000
        storage.put(name, data)
        assert storage.get(name) == data
        entry = storage.head(name)
        assert entry is not None
        assert entry.bytes == 3000
        assert storage.claim(f"claimed/{number}", data)
        assert not storage.claim(f"claimed/{number}", b"another's")
        assert storage.get_range(name, 10, 20) == data[10:20]
    assert {one.path for one in storage.list("some")} == {f"some/{n}" for n in range(12)}
    for number in range(12):
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
    data = bytes(range(256)) * (21 * 2**12)  # 21 MiB: three parts
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

    from cluster.storage import STORE_ERRORS

    monkeypatch.setattr("cluster.s3._MOST_RETRIES", 1)
    monkeypatch.setattr("cluster.s3._FIRST_DELAY", timedelta(milliseconds=1))
    storage = open_storage(weather.root)
    weather.behaviour.faults, weather.behaviour.share = ("slow_down",), 1.0
    with pytest.raises(STORE_ERRORS):
        storage.get("object")
    assert weather.proxy.requests["GET"] == 2 * 5  # each of five attempts is repeated once
