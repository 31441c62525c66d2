"""Submissions on a real head node that wants a token: who gets in, and what becomes of the jobs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.cluster.submission.conftest import BIN, Head, other_node

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("submission"),
]

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
JOB = """
lake: ./lake
jobs:
  - kind: phantoms
    target: ./phantoms
    count: {count}
    size: 64
    execution: {{shard_images: 20}}
"""

CREDENTIALS: list[tuple[Callable[[str], dict[str, str]], int]] = [
    (lambda _token: {}, 401),
    (lambda _token: {"Authorization": "Bearer wrong"}, 403),
    (lambda token: {"Authorization": f"Bearer {token}"}, 200),
    (lambda token: {"X-Ray-Authorization": f"Bearer {token}"}, 200),
]


@pytest.mark.parametrize(("headers", "status"), CREDENTIALS, ids=["none", "bad", "good", "proxied"])
@pytest.mark.parametrize("path", ["/api/version", "/api/jobs/", "/nodes?view=summary"])
def test_the_dashboard_answers_by_token(
    head: Head, headers: Callable[[str], dict[str, str]], status: int, path: str
) -> None:
    answer = requests.get(head.url + path, headers=headers(head.token), timeout=20)
    assert answer.status_code == status


@pytest.mark.parametrize(("headers", "status"), CREDENTIALS[:2], ids=["none", "bad"])
def test_nobody_submits_without_the_token(
    head: Head, tmp_path: Path, headers: Callable[[str], dict[str, str]], status: int
) -> None:
    proof = tmp_path / "intruder"
    answer = requests.post(
        f"{head.url}/api/jobs/",
        json={"entrypoint": f"touch {proof}"},
        headers=headers(head.token),
        timeout=20,
    )
    assert answer.status_code == status
    good = {"Authorization": f"Bearer {head.token}"}
    jobs = requests.get(f"{head.url}/api/jobs/", headers=good, timeout=20).json()
    assert not [one for one in jobs if "intruder" in one["entrypoint"]]


def test_the_control_store_takes_no_driver_without_the_token(head: Head) -> None:
    """Its port is open to the network: the token is all that guards it."""
    address = f"127.0.0.1:{head.ports['port']}"
    code = f"import ray; ray.init('{address}', log_to_driver=False); print('inside')"
    environments = (
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": head.token},
    )
    inside = []
    for more in environments:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        inside.append("inside" in done.stdout)
    assert inside == [False, False, True]


def listeners(head: Head) -> dict[str, set[str]]:
    """Addresses that the head's processes listen on, by the name of the port."""
    names = {port: name for name, port in head.ports.items()}
    found: dict[str, set[str]] = {}
    for process in head.family():
        try:
            connections = process.net_connections("inet")
        except psutil.Error:  # it ended meanwhile, or is no business of ours
            continue
        for one in connections:
            if one.status == psutil.CONN_LISTEN and one.laddr.port in names:
                found.setdefault(names[one.laddr.port], set()).add(one.laddr.ip)
    return found


def test_the_dashboard_listens_on_loopback_and_the_rest_does_not(head: Head) -> None:
    deadline_s = time.monotonic() + 60
    while not {"metrics-export-port", "dashboard-agent-listen-port"} <= listeners(head).keys():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    found = listeners(head)
    assert found["dashboard-port"] <= LOOPBACK
    # What docs/security.md says of Ray: these can't be bound to loopback, so the token and the
    # network must guard them. Where that changes, the page does.
    for name in ("port", "node-manager-port", "object-manager-port", "metrics-export-port"):
        assert not found[name] <= LOOPBACK, name


def test_metrics_answer_without_a_token(head: Head) -> None:
    """So the network must fence them; see docs/security.md."""
    url = f"http://127.0.0.1:{head.ports['metrics-export-port']}/metrics"
    deadline_s = time.monotonic() + 60
    while True:
        try:
            answer = requests.get(url, timeout=20)
        except requests.ConnectionError:
            assert time.monotonic() < deadline_s
            time.sleep(0.5)
        else:
            break
    assert answer.status_code == 200


class Bench:
    """A folder with a job file, and `rayward` called in it."""

    def __init__(self, folder: Path, head: Head) -> None:
        self.folder, self.head = folder, head

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return subprocess.Popen(
            [BIN / "rayward", *arguments],
            cwd=self.folder,
            env={**kept, **self.head.environment, "HOME": str(self.folder), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, code: int = 0, **environment: str) -> tuple[str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=400)
        assert process.returncode == code, out + err
        return out, err

    def driver(self, submission_id: str) -> psutil.Process:
        """The driver of a submission, once it has work to show."""
        deadline_s = time.monotonic() + 200
        while time.monotonic() < deadline_s:
            for one in self.head.family():
                try:
                    environment, command = one.environ(), one.cmdline()
                except psutil.Error:
                    continue
                ours = submission_id in environment.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "")
                if ours and "cluster.submission.driver" in command and len(self.receipts()) > 2:
                    return one
            time.sleep(0.1)
        pytest.fail(f"no driver of {submission_id}")

    def receipts(self) -> dict[str, bytes]:
        """Receipts of all runs, by path."""
        return {str(one): one.read_bytes() for one in (self.folder / "lake/_runs").rglob("0*.json")}

    def jobs(self) -> dict[str, dict[str, Any]]:
        out, _ = self.call("jobs", "--json", "--limit", "100")
        found = [json.loads(line) for line in out.splitlines()]
        return {one["submission_id"]: one for one in found}


@pytest.fixture
def bench(head: Head, tmp_path: Path) -> Callable[[str, int], Bench]:
    def make(name: str, count: int) -> Bench:
        (tmp_path / f"{name}.yaml").write_text(JOB.format(count=count))
        return Bench(tmp_path, head)

    return make


NIGHT = ("--night", "2026-11-21")


def test_a_submission_ends_with_the_jobs_own_exit_code(
    bench: Callable[[str, int], Bench],
) -> None:
    place = bench("small", 40)
    out, err = place.call("submit", "small.yaml", *NIGHT, "--json")
    (report,) = [json.loads(line) for line in out.splitlines()]
    assert (report["status"], report["counts"]["done"]) == ("published", 40)
    assert "small-20261121-a1 ended with exit code 0" in err
    assert "all see the lake" in err
    # Rejects beyond the limit are exit code 3, which Ray calls a failure.
    (place.folder / "small.yaml").write_text(
        (place.folder / "small.yaml").read_text()
        + "  - {kind: ingest, name: a, source: ./phantoms/images, max_pixels: 10}\n"
    )
    out, err = place.call("submit", "small.yaml", *NIGHT, code=3)
    assert "40 rejected" in out
    second = place.jobs()["small-20261121-a2"]
    assert (second["ray_status"], second["exit_code"]) == ("FAILED", 3)
    shown, _ = place.call("logs", "small-20261121-a2")
    assert "rejects are 100.0%" in shown
    assert place.head.token not in shown + out + err


def test_a_killed_driver_is_followed_by_an_attempt_that_keeps_its_shards(
    bench: Callable[[str, int], Bench],
) -> None:
    place = bench("killed", 1500)
    out, _ = place.call("submit", "killed.yaml", *NIGHT, "--no-wait")
    assert out == "killed-20261121-a1\n"
    driver = place.driver("killed-20261121-a1")
    driver.suspend()  # it hands out no more shards while others look at it
    attached, _ = place.call("submit", "killed.yaml", *NIGHT, "--no-wait", "--json")
    assert json.loads(attached) == {"submission_id": "killed-20261121-a1", "attached": True}
    driver.kill()
    driver.wait(60)
    kept = place.receipts()
    out, err = place.call("submit", "killed.yaml", *NIGHT, "--json", "--no-preflight")
    assert "Submitted killed-20261121-a2" in err
    (report,) = [json.loads(line) for line in out.splitlines()]
    assert (report["status"], report["counts"]["done"]) == ("published", 1500)
    assert 0 < len(kept) < 75
    assert kept.items() <= place.receipts().items()
    assert len(place.receipts()) == 75
    jobs = place.jobs()
    assert jobs["killed-20261121-a1"]["outcome"] == "uncertain"
    assert jobs["killed-20261121-a2"]["exit_code"] == 0


def test_following_detaches_and_stopping_stops(bench: Callable[[str, int], Bench]) -> None:
    place = bench("stopped", 3000)
    following = place.start("submit", "stopped.yaml", *NIGHT, "--no-preflight")
    place.driver("stopped-20261121-a1")
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=60)
    assert following.returncode == 130
    assert "Detached; stopped-20261121-a1 goes on" in err
    assert "rayward stop stopped-20261121-a1" in err
    assert place.jobs()["stopped-20261121-a1"]["ray_status"] == "RUNNING"
    _, err = place.call("stop", "stopped-20261121-a1")
    assert "Stopped stopped-20261121-a1" in err
    assert place.jobs()["stopped-20261121-a1"]["ray_status"] == "STOPPED"
    # Its leases were given up: nobody holds the night.
    status, _ = place.call("status", "--lake", "lake", "--json")
    assert json.loads(status.splitlines()[0])["state"] == "unfinished"
    _, err = place.call("stop", "stopped-20261121-a1")
    assert "was not running (STOPPED)" in err


def test_commands_without_the_right_token_are_turned_away(
    bench: Callable[[str, int], Bench], tmp_path: Path
) -> None:
    place = bench("refused", 10)
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    wrong.chmod(0o600)
    _, err = place.call("jobs", code=2, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert "The cluster refuses the request" in err
    assert "got a token it does not know" in err
    _, err = place.call("submit", "refused.yaml", code=2, RAY_AUTH_TOKEN_PATH="")
    assert "got no token" in err
    wrong.chmod(0o644)
    _, err = place.call("stop", "x", code=2, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert "open to others" in err
    _, err = place.call("logs", "nobody-20261121-a1", code=2)
    assert "knows no such job" in err


def test_a_lake_that_another_node_does_not_see_is_refused(
    bench: Callable[[str, int], Bench],
) -> None:
    place = bench("split", 10)
    lake = place.folder / "lake"
    lake.mkdir()
    with other_node(place.head, lake):
        _, err = place.call("submit", "split.yaml", *NIGHT, code=2)
        (told,) = [line for line in err.splitlines() if "is not the same place" in line]
        assert f"the lake {lake} is not the same place on node" in told
        assert "use s3://bucket/prefix, or one folder mounted at the same path" in told
        assert "split-20261121-a1" not in place.jobs()
    assert not list((lake / "_preflight").glob("*"))
