import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from obstore.exceptions import GenericError

from cluster.lake import leases
from cluster.lake.layout import leases_prefix
from cluster.lake.leases import Holder, hold, holder_of
from cluster.storage import Storage, open_storage
from schemas.errors import LeaseHeld, LeaseLost

KEY = ("score", "kermany", "m1")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def plant(storage: Storage, holder: Holder, epoch: int = 1) -> None:
    document = json.dumps(dataclasses.asdict(holder)).encode()
    assert storage.put_new(f"{leases_prefix(KEY)}/{epoch:08d}.json", document)


def elsewhere() -> Holder:
    """A process on another machine, whose life can't be judged from here."""
    return Holder("ct-server", 4711, 0, "another-boot", "another-namespace")


def test_a_held_key_is_refused_and_names_its_holder(storage: Storage) -> None:
    with hold(storage, KEY), pytest.raises(LeaseHeld) as refused, hold(storage, KEY):
        pass
    me = Holder.this_process()
    assert f"process {me.pid} on {me.host}" in str(refused.value)
    assert refused.value.exit_code == 5


def test_other_keys_are_free(storage: Storage) -> None:
    with hold(storage, KEY), hold(storage, ("score", "kermany", "m2")):
        assert holder_of(storage, KEY) == Holder.this_process()


def test_a_released_key_is_free_again(storage: Storage) -> None:
    with hold(storage, KEY):
        pass
    assert holder_of(storage, KEY) is None
    with hold(storage, KEY):
        assert holder_of(storage, KEY) == Holder.this_process()


def test_a_dead_process_of_this_machine_is_replaced_at_once(storage: Storage) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    plant(storage, dataclasses.replace(Holder.this_process(), pid=ended.pid, start_ticks=1))
    with hold(storage, KEY):
        assert holder_of(storage, KEY) == Holder.this_process()


def test_a_recycled_pid_is_not_the_holder(storage: Storage) -> None:
    plant(storage, dataclasses.replace(Holder.this_process(), start_ticks=12345))
    with hold(storage, KEY):
        pass


def test_nobody_dies_when_the_clock_is_set(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(storage, KEY):
        told = psutil.Process.create_time
        monkeypatch.setattr(psutil.Process, "create_time", lambda one: told(one) - 5)
        with pytest.raises(LeaseHeld), hold(storage, KEY):
            pass


def test_a_process_is_known_by_its_start_whatever_its_name(tmp_path: Path) -> None:
    program = tmp_path / "a ) b ("
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        try:
            told = psutil.Process(child.pid).create_time()
            ticks = leases._start_ticks(child.pid)
        finally:
            child.kill()
    assert ticks is not None
    assert ticks / os.sysconf("SC_CLK_TCK") + psutil.boot_time() == pytest.approx(told, abs=0.5)


def test_a_holder_whose_start_is_not_told_is_judged_by_its_pid_alone() -> None:
    document = dataclasses.asdict(Holder.this_process())
    del document["start_ticks"]
    assert not Holder.of({**document, "started_at": 1.0, "nonce": "0"}).is_known_dead
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert Holder.of({**document, "pid": ended.pid}).is_known_dead


def test_another_machine_holds_until_its_lease_lapses(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(storage, elsewhere())
    with pytest.raises(LeaseHeld, match="process 4711 on ct-server"), hold(storage, KEY):
        pass
    monkeypatch.setattr(leases, "LAPSE_S", -1.0)
    with hold(storage, KEY):
        pass


def test_a_driver_that_was_replaced_notices(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(storage, KEY) as first:
        first.check()
        monkeypatch.setattr(leases, "LAPSE_S", -1.0)
        with hold(storage, KEY) as second:
            second.check()
            with pytest.raises(LeaseLost):
                first.check()


def test_one_of_many_wins(storage: Storage) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)
    done = threading.Barrier(8)

    def race() -> None:
        start.wait()
        try:
            with hold(storage, KEY):
                outcomes.append("held")
                done.wait(timeout=30)
        except LeaseHeld:
            outcomes.append("refused")
            done.wait(timeout=30)

    racers = [threading.Thread(target=race) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 7


def test_old_epochs_are_swept(storage: Storage) -> None:
    for _ in range(5):
        with hold(storage, KEY):
            pass
    names = [one.path.rpartition("/")[2] for one in storage.list(leases_prefix(KEY))]
    assert sorted(names) == ["00000005.json", "00000005.released"]


def _wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_renewal_the_store_refused_is_tried_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, refused = Storage.put, []

    def refuse_twice(store: Storage, path: str, data: bytes) -> None:
        if path.endswith(".beat") and len(refused) < 2:
            refused.append(path)
            raise GenericError("no route to the store")
        put(store, path, data)

    monkeypatch.setattr(leases, "_RENEW_S", 0.01)
    monkeypatch.setattr(Storage, "put", refuse_twice)
    with hold(storage, KEY) as lease:
        _wait_for(lambda: storage.head(f"{leases_prefix(KEY)}/00000001.beat") is not None)
        lease.check()
    assert len(refused) == 2


def test_a_lease_that_can_not_be_renewed_is_lost_once_it_lapsed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Storage.put

    def refuse(store: Storage, path: str, data: bytes) -> None:
        if path.endswith(".beat"):
            raise OSError("no route to the store")
        put(store, path, data)

    monkeypatch.setattr(leases, "_RENEW_S", 0.01)
    monkeypatch.setattr(leases, "LAPSE_S", 0.5)
    monkeypatch.setattr(Storage, "put", refuse)
    with hold(storage, KEY) as lease:
        lease.check()
        _wait_for(lease._lost.is_set)
        with pytest.raises(LeaseLost, match="could not be renewed"):
            lease.check()
