"""An S3 server behind a proxy that makes answers go wrong."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.s3.proxy import Behaviour, FaultyProxy, faulty_proxy


@dataclass(frozen=True)
class Weather:
    """A lake's root, and the proxy through which this process reaches it."""

    root: str
    proxy: FaultyProxy

    @property
    def behaviour(self) -> Behaviour:
        return self.proxy.behaviour


@pytest.fixture
def weather(
    s3_root: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Weather]:
    """An empty bucket behind a proxy that is friendly until it is told otherwise."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Waiting between attempts is tested once; elsewhere it only takes time.
    monkeypatch.setattr("cluster.storage.DELAYS_S", (0.01, 0.02, 0.05, 0.1))
    with faulty_proxy(s3_endpoint, Behaviour(seed=7)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield Weather(s3_root, proxy)
