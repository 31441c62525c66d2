"""Whole jobs on a lake on S3 whose store and network fail, and whose drivers get killed.

The archive lies on disk; the lake begins with a model and nothing else.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import boto3
import pyarrow as pa
import pytest

from cluster.lake.reader import LakeReader
from cluster.storage import open_storage
from tests.cluster.s3.driver import NIGHTLY, TABLES
from tests.cluster.s3.proxy import Behaviour, FaultyProxy, faulty_proxy

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(1500)]

CHECKOUT = Path(__file__).resolve().parents[3]
SHARE = 0.05
REQUESTS = 700
"""Fewer than an undisturbed run makes."""


@dataclass(frozen=True)
class Place:
    """A folder with an archive, and what it takes to work on it."""

    folder: Path

    def start(self, lake: str, kinds: tuple[str, ...], **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.s3.driver", self.folder, lake, *kinds],
            cwd=CHECKOUT,
            env={**os.environ, "RAYWARD_KEY_FILE": str(self.folder / "key"), **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, lake: str, kinds: tuple[str, ...], **more: str) -> str:
        with self.start(lake, kinds, **more) as process:
            out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out
        return out


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An archive, and beside it a lake on disk that holds a trained model."""
    place = Place(tmp_path_factory.mktemp("base"))
    lake = place.folder / "lake"
    place.run(str(lake), ("phantoms", *NIGHTLY[:-1], "split", "train"))
    for table in (*TABLES, "annotations", "leaks", "metrics", "splits"):
        shutil.rmtree(lake / "tables" / table, ignore_errors=True)
    return place


@pytest.fixture(scope="module")
def expected(base: Place) -> dict[str, pa.Table]:
    """The tables of the same jobs on disk, undisturbed."""
    lake = base.folder / "undisturbed"
    shutil.copytree(base.folder / "lake", lake)
    base.run(str(lake), NIGHTLY)
    return contents(str(lake))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@dataclass
class Bucket:
    """A copy of the base lake on S3 behind a proxy."""

    place: Place
    root: str
    proxy: FaultyProxy

    def start(self) -> "subprocess.Popen[str]":
        return self.place.start(self.root, NIGHTLY, AWS_ENDPOINT_URL=self.proxy.endpoint)

    def run(self) -> None:
        self.place.run(self.root, NIGHTLY, AWS_ENDPOINT_URL=self.proxy.endpoint)


@pytest.fixture
def bucket(base: Place, server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test-secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", server),
    ):
        monkeypatch.setenv(name, value)
    name = f"lake-{uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    root = f"s3://{name}/some/prefix"
    storage, lake = open_storage(root), base.folder / "lake"
    for path in lake.rglob("*"):
        if path.is_file():
            storage.put(str(path.relative_to(lake)), path.read_bytes())
    with faulty_proxy(server, Behaviour(share=SHARE, seed=11, latency_s=(0, 0.005))) as proxy:
        yield Bucket(base, root, proxy)


def contents(root: str) -> dict[str, pa.Table]:
    """What readers see, ids and times of runs aside."""
    reader = LakeReader(open_storage(root), memory_mb=1024)
    times = {"images": ", seen_at", "predictions": ", scored_at"}
    return {
        name: reader.query(
            f"SELECT * EXCLUDE (run_id{times.get(name, '')}) FROM {name} ORDER BY ALL"
        )
        for name in TABLES
    }


def assert_equal(found: dict[str, pa.Table], wanted: dict[str, pa.Table]) -> None:
    for name in TABLES:
        assert found[name].num_rows == wanted[name].num_rows > 0, name
        if name != "predictions":
            assert found[name].equals(wanted[name]), name
    left, right = found["predictions"].to_pylist(), wanted["predictions"].to_pylist()
    for one, other in zip(left, right, strict=True):
        assert (one["image_id"], one["model_id"]) == (other["image_id"], other["model_id"])
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-6)


@dataclass
class Onlooker:
    """Polls a lake through its log, and remembers how many rows of each run it saw."""

    root: str
    seen: list[dict[tuple[str, str], int]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> "Onlooker":
        self._storage = open_storage(self.root)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> dict[tuple[str, str], int]:
        """Rows by table and run as they are visible now; published runs count with none, too."""
        reader = LakeReader(self._storage)
        rows = {(name, run): 0 for run in reader.published() for name in TABLES}
        for name in TABLES:
            counted = reader.query(f"SELECT run_id, count(*) AS n FROM {name} GROUP BY run_id")
            for one in counted.to_pylist():
                assert (name, one["run_id"]) in rows, "rows of a run that is not published"
                rows[name, one["run_id"]] = one["n"]
        return rows

    def _poll(self) -> None:
        while not self._over.is_set():
            try:
                self.seen.append(self.look())
            except Exception as error:  # noqa: BLE001 - told by the test
                self.errors.append(error)
                return
            self._over.wait(0.05)

    def check(self) -> None:
        """Every look saw a run whole or not at all, and no run twice or less than before."""
        last = self.look()
        assert not self.errors
        assert len(self.seen) > 5
        for one in self.seen:
            assert all(last[key] == count for key, count in one.items())
        amounts = [len(one) for one in self.seen]
        assert amounts == sorted(amounts)
        assert amounts[0] < amounts[-1] or len(last) > amounts[0]


def test_five_faults_in_a_hundred_change_nothing(
    bucket: Bucket, expected: dict[str, pa.Table]
) -> None:
    bucket.run()
    assert bucket.proxy.met.total() >= 0.03 * bucket.proxy.requests.total()
    assert set(bucket.proxy.met) == set(bucket.proxy.behaviour.faults)
    assert_equal(contents(bucket.root), expected)
    assert bucket.place.run(bucket.root, NIGHTLY).count(" up_to_date Counts(") == 4


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_driver_leaves_nothing_partial_and_is_followed_up(
    bucket: Bucket, expected: dict[str, pa.Table], seed: int
) -> None:
    chance = random.Random(seed)
    bucket.proxy.behaviour.seed = seed
    kills = 0
    with Onlooker(bucket.root) as onlooker:
        for _ in range(3):
            # By requests and not by the clock, so that a busy machine changes nothing.
            kills += killed_after(bucket, chance.randint(1, REQUESTS))
        bucket.run()
    onlooker.check()
    assert kills >= 1
    assert_equal(contents(bucket.root), expected)


def killed_after(bucket: Bucket, requests: int) -> bool:
    """Start a driver and end it after so many requests; says whether it still worked."""
    bucket.proxy.forget()
    with bucket.start() as process:
        while bucket.proxy.requests.total() < requests and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0
