"""Talking to a dashboard: who it lets in, and what is said when it does not answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
import ray
from pydantic import SecretStr

from cluster.submission.access import Access
from cluster.submission.client import Cluster, auth_mode, poll
from schemas.errors import RunError, UsageError
from tests.cluster.submission.conftest import free_ports

TOKEN = "t0ken"
BEYOND = "http://10.0.0.7:8265"


@dataclass
class Dashboard:
    """Answers like Ray's dashboard."""

    url: str = ""
    mode: str = "token"
    answers: dict[str, tuple[int, object]] = field(default_factory=dict)
    tokens: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, path: str, token: str | None) -> tuple[int, bytes]:
        self.tokens.append((path, token))
        if path == "/api/authentication_mode":
            return 200, json.dumps({"authentication_mode": self.mode}).encode()
        if self.mode == "token" and token != f"Bearer {TOKEN}":
            return (403 if token else 401), b"no"
        if path == "/api/version":
            return 200, json.dumps({"version": "4", "ray_version": ray.__version__}).encode()
        status, value = self.answers.get(path, (404, "Job x does not exist."))
        return status, value.encode() if isinstance(value, str) else json.dumps(value).encode()


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    fake = Dashboard()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = fake.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


def access(dashboard: Dashboard, token: str | None = TOKEN) -> Access:
    return Access(dashboard.url, SecretStr(token) if token else None)


def test_the_right_token_gets_in(dashboard: Dashboard) -> None:
    assert Cluster.reach(access(dashboard)).ray_version() == ray.__version__
    # The question who it is comes without the token.
    assert dashboard.tokens[0] == ("/api/authentication_mode", None)
    assert {token for _, token in dashboard.tokens[1:]} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("token", "got"), [(None, "no token"), ("wrong", "a token it does not know")]
)
def test_others_are_told(dashboard: Dashboard, token: str | None, got: str) -> None:
    with pytest.raises(UsageError, match="refuses the request") as refused:
        Cluster.reach(access(dashboard, token))
    assert refused.value.got == got
    assert "wrong" not in str(refused.value)


def test_a_cluster_beyond_this_machine_that_wants_no_token_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.submission.client.auth_mode", lambda _url: "disabled")
    with pytest.raises(UsageError, match="takes jobs from anyone") as refused:
        Cluster.reach(Access(BEYOND, SecretStr(TOKEN)))
    assert "RAY_AUTH_MODE=token" in str(refused.value)
    assert "--allow-no-token" in str(refused.value)


def test_one_of_this_machine_is_taken(dashboard: Dashboard) -> None:
    dashboard.mode = "disabled"
    assert Cluster.reach(access(dashboard, None)).ray_version() == ray.__version__


def test_a_cluster_that_does_not_answer_is_told() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(UsageError, match="can't be reached") as error:
        auth_mode(url)
    assert (error.value.where, error.value.got) == (url, "ConnectionError")


def test_jobs_are_read(dashboard: Dashboard) -> None:
    listed = [
        details("a", "RUNNING", 1000),
        details("b", "SUCCEEDED", 2000, {"rayward_lake": "/l"}),
        details("check", "SUCCEEDED", 3000, {"rayward_check": "b"}),
        {**details("c", "RUNNING", 4000), "submission_id": None},
    ]
    dashboard.answers = {"/api/jobs/": (200, listed), "/api/jobs/b": (200, listed[1])}
    cluster = Cluster.reach(access(dashboard))
    assert [(one.submission_id, one.is_over) for one in cluster.jobs()] == [
        ("b", True),
        ("a", False),
    ]
    job = cluster.job("b")
    assert job is not None
    assert (job.metadata["rayward_lake"], job.started_at and job.started_at.second) == ("/l", 2)
    assert cluster.job("nobody") is None


def test_errors_of_the_cluster_are_told_by_their_last_line(dashboard: Dashboard) -> None:
    dashboard.answers = {"/api/jobs/x": (500, "Traceback:\n  File a\nValueError: no room\n")}
    with pytest.raises(RunError, match="could not say how the job stands: got ValueError: no room"):
        Cluster.reach(access(dashboard)).job("x")


def details(name: str, status: str, began: int, notes: object = None) -> dict[str, object]:
    return {
        "type": "SUBMISSION",
        "submission_id": name,
        "status": status,
        "entrypoint": "x",
        "start_time": began,
        "metadata": notes,
    }


def test_no_proxy_sees_the_token_of_a_cluster_on_this_machine(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, nowhere)
    dashboard.answers = {"/api/jobs/b": (200, details("b", "SUCCEEDED", 2000))}
    cluster = Cluster.reach(access(dashboard))  # Ray's own client among them
    assert cluster.ray_version() == ray.__version__
    assert cluster.job("b") is not None
    # Others' proxies are those of the environment.
    with pytest.raises(UsageError, match="can't be reached") as error:
        auth_mode(BEYOND)
    assert error.value.got == "ProxyError"


@pytest.mark.timeout(30)
def test_rays_client_does_not_wait_for_ever(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster.reach(access(dashboard))
    monkeypatch.setattr("cluster.submission.client._WORK_S", (1.0, 0.2))
    quiet = Event()
    monkeypatch.setattr(dashboard, "answer", lambda *_: (quiet.wait(20), (404, b""))[1])
    with pytest.raises(UsageError, match="can't be reached") as error:
        cluster.job("b")
    quiet.set()
    assert error.value.got == "ReadTimeout"


def test_polling_ends_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.submission.client.time.sleep", lambda _seconds: None)
    left = [1, 2, 3]
    assert poll(lambda: left.pop(0), lambda one: one == 2, 60) == 2
    assert poll(lambda: 7, lambda _: False, -1) == 7
