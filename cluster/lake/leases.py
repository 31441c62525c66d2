"""Leases: at most one driver works on a key at a time.

A lease is an object ``EPOCH.json`` that only one driver can create. Its holder renews it by
rewriting ``EPOCH.beat``; to give it up it writes ``EPOCH.released``. Whoever finds the newest
epoch released or lapsed creates the next one, and an older holder that wakes up again sees the
newer epoch and stops. No object is ever changed conditionally, so disks and S3 behave alike.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from cluster.lake.layout import leases_prefix
from cluster.storage import STORE_ERRORS, Storage
from schemas.errors import LakeError, LeaseHeld, LeaseLost

LAPSE_S = 60.0
"""Seconds without a renewal after which a lease may be taken over."""
_RENEW_S = LAPSE_S / 4


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease."""

    host: str
    pid: int
    start_ticks: int | None
    """When it began, in ticks since the boot; nothing where the system does not tell."""
    boot: str
    pid_namespace: str

    @staticmethod
    def this_process() -> "Holder":
        """The process that asks."""
        pid = os.getpid()
        return Holder(socket.gethostname(), pid, _start_ticks(pid), *_pid_space())

    @staticmethod
    def of(document: Mapping[str, Any]) -> "Holder":
        """The holder that a document names; where it tells no start, any of that pid is it."""
        told: dict[str, Any] = {one.name: document.get(one.name) for one in fields(Holder)}
        return Holder(**told)

    @property
    def is_known_dead(self) -> bool:
        """Whether the process ended for sure; another machine's can't be judged from here."""
        if (self.boot, self.pid_namespace) != _pid_space():
            return False
        if not psutil.pid_exists(self.pid):
            return True
        ticks = _start_ticks(self.pid)
        return None not in (ticks, self.start_ticks) and ticks != self.start_ticks

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _start_ticks(pid: int) -> int | None:
    """When a process began; a time of the wall clock would move whenever the clock is set.

    Field 22 of /proc/PID/stat (proc_pid_stat(5)), after a name that may hold spaces and brackets.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:  # it ended just now, or the system is not Linux
        return None
    return int(stat.rpartition(")")[2].split()[19])


def _pid_space() -> tuple[str, str]:
    """Names the set of processes in which a pid means this process: boot and pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():  # not Linux: the host and its boot time do
        return socket.gethostname(), str(int(psutil.boot_time()))
    return boot.read_text().strip(), str(Path("/proc/self/ns/pid").readlink())


@dataclass(frozen=True)
class _Epoch:
    number: int
    renewed_at: datetime
    released: bool


class Lease:
    """A lease this driver holds."""

    def __init__(self, storage: Storage, key: tuple[str, ...], epoch: int) -> None:
        self.key = key
        self._storage, self._epoch = storage, epoch
        self._prefix = leases_prefix(key)
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._renewals = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewals.start()

    def check(self) -> None:
        """Make sure that nobody took over.

        Raises:
            LeaseLost: if somebody did, or may do so because the lease lapsed.
        """
        newest = _newest(self._storage, self._prefix)
        if self._lost.is_set() or (newest and newest.number > self._epoch):
            raise LeaseLost(
                "Another driver took this work over, or may have: the lease could not be renewed",
                where="/".join(self.key),
                remedy="nothing is lost: the other driver goes on, or run the job again",
            )

    def release(self) -> None:
        """Give the key up."""
        self._stop.set()
        self._renewals.join()
        self._storage.put(f"{self._prefix}/{self._epoch:08d}.released", b"")

    def _renew(self) -> None:
        try:
            self._renew_while_held()
        finally:
            if not self._stop.is_set():  # whatever ended the renewals, nobody may rely on them
                self._lost.set()

    def _renew_while_held(self) -> None:
        renewed_s = time.monotonic()
        while not self._stop.wait(_RENEW_S):
            started_s = time.monotonic()
            try:
                newest = _newest(self._storage, self._prefix)
                if newest and newest.number > self._epoch:
                    return
                self._storage.put(f"{self._prefix}/{self._epoch:08d}.beat", b"")
                renewed_s = started_s
            except STORE_ERRORS:  # tried again, as long as nobody may have taken over
                if time.monotonic() - renewed_s > LAPSE_S:
                    return


@contextmanager
def hold(storage: Storage, key: tuple[str, ...]) -> Iterator[Lease]:
    """Hold ``key`` alone until the block ends.

    Raises:
        LeaseHeld: if another driver holds it; names that driver.
        LakeError: if the store can't make an object only if there is none.
    """
    if storage.local_path is None:  # a gateway may come between a lake and its store any day
        require_atomic(storage)
    prefix = leases_prefix(key)
    newest = _newest(storage, prefix)
    if newest and not newest.released:
        _refuse_if_alive(storage, key, newest)
    number = newest.number + 1 if newest else 1
    # One process may ask twice at once: the nonce tells its documents apart.
    document = {**asdict(Holder.this_process()), "nonce": secrets.token_hex(8)}
    if not storage.claim(f"{prefix}/{number:08d}.json", json.dumps(document).encode()):
        raise LeaseHeld(
            "Another run took this work at the same moment", where="/".join(key), remedy=_REMEDY
        )
    _forget_before(storage, prefix, number)
    lease = Lease(storage, key, number)
    try:
        yield lease
    finally:
        lease.release()


def require_atomic(storage: Storage) -> None:
    """Make sure that of two drivers that create one object only one succeeds.

    Raises:
        LakeError: if the store overwrites; leases, receipts and commits would all be worthless.
    """
    if not storage.creates_atomically:
        raise LakeError(
            "This store can't create an object only if there is none, so runs could collide",
            where=storage.root,
            remedy="use a store with conditional writes (If-None-Match) or a local disk",
        )


_REMEDY = "wait for it, or stop it; it goes on where it stopped when it is run again"


def holder_of(storage: Storage, key: tuple[str, ...]) -> Holder | None:
    """The live holder of a key, if there is one."""
    newest = _newest(storage, leases_prefix(key))
    if newest is None or newest.released:
        return None
    holder = _holder(storage, leases_prefix(key), newest)
    return holder if holder and not _lapsed(storage, holder, newest) else None


def _refuse_if_alive(storage: Storage, key: tuple[str, ...], newest: _Epoch) -> None:
    holder = _holder(storage, leases_prefix(key), newest)
    if holder is not None and not _lapsed(storage, holder, newest):
        raise LeaseHeld(
            "Another run holds this work",
            where="/".join(key),
            got=f"{holder}, last heard of at {newest.renewed_at:%H:%M:%S} UTC",
            remedy=_REMEDY,
        )


def _holder(storage: Storage, prefix: str, epoch: _Epoch) -> Holder | None:
    try:
        document = json.loads(storage.get(f"{prefix}/{epoch.number:08d}.json"))
    except FileNotFoundError:
        return None  # swept by a newer holder between the listing and this read
    return Holder.of(document)


def _lapsed(storage: Storage, holder: Holder, epoch: _Epoch) -> bool:
    return holder.is_known_dead or (storage.now() - epoch.renewed_at > timedelta(seconds=LAPSE_S))


def _newest(storage: Storage, prefix: str) -> _Epoch | None:
    epochs: dict[int, dict[str, datetime]] = {}
    for entry in storage.list(prefix):
        stem, _, suffix = entry.path.rpartition("/")[2].partition(".")
        epochs.setdefault(int(stem), {})[suffix] = entry.modified_at
    # A beat may outlive its lease by a moment; only the lease itself makes an epoch.
    held = [number for number, files in epochs.items() if "json" in files]
    if not held:
        return None
    files = epochs[max(held)]
    return _Epoch(max(held), max(files.values()), "released" in files)


def _forget_before(storage: Storage, prefix: str, number: int) -> None:
    for entry in list(storage.list(prefix)):
        if int(entry.path.rpartition("/")[2].partition(".")[0]) < number:
            storage.delete(entry.path)
