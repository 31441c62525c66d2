"""The launcher against an API server of the test's own, with a certificate of its own."""

import datetime
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.deploy.launch import launch
from tests.cluster.deploy.manifests import KUBERAY, Manifest, documents

TOKEN = "token-of-the-launcher"


def _signed_by_itself(called: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, called)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made, key


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key and a certificate for 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = _signed_by_itself("api")
    (folder / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder


class Api(ThreadingHTTPServer):
    """Takes RayJobs of a bearer, one of a name; ``broken`` answers everything with that code."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.created: dict[str, Manifest] = {}
        self.broken = 0

    def handle_error(self, *_: Any) -> None:
        """A client that does not trust the certificate hangs up: no news."""


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.broken:
            self._answer(self.server.broken, "broken for the test")
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer(401, "Unauthorized")
        elif self.path != "/apis/ray.io/v1/namespaces/rayward/rayjobs":
            self._answer(404, "no such resource")
        elif body["metadata"]["name"] in self.server.created:
            self._answer(409, "already exists")
        else:
            self.server.created[body["metadata"]["name"]] = body
            self._answer(201, "created")

    def _answer(self, code: int, message: str) -> None:
        body = json.dumps({"kind": "Status", "message": message}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: pytest's output is for failures."""


@pytest.fixture
def api(certificate: Path) -> Iterator[Api]:
    server = Api(certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def account(certificate: Path, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Kubernetes mounts into a pod, and says in its environment."""
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "namespace").write_text("rayward")
    (tmp_path / "ca.crt").write_bytes((certificate / "ca.crt").read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.server_address[1]))
    return tmp_path


@pytest.fixture
def job() -> Manifest:
    (one,) = documents(KUBERAY / "rayjob.yaml")
    return one


def test_a_night_is_created_once(api: Api, account: Path, job: Manifest) -> None:
    assert launch(job, account=account) == (0, "created the RayJob rayward-nightly")
    assert api.created == {"rayward-nightly": job}
    code, said = launch(job, account=account)
    assert code == 5
    assert "still stands" in said


def test_it_is_created_where_the_launcher_lives(api: Api, account: Path, job: Manifest) -> None:
    job["metadata"]["namespace"] = "elsewhere"
    assert launch(job, account=account)[0] == 0
    assert api.created["rayward-nightly"]["metadata"]["namespace"] == "rayward"
    assert job["metadata"]["namespace"] == "elsewhere"


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (403, 2), (422, 2), (429, 1), (500, 1), (503, 1)]
)
def test_only_what_may_pass_is_worth_another_try(
    api: Api, account: Path, job: Manifest, status: int, code: int
) -> None:
    api.broken = status
    told, said = launch(job, account=account)
    assert told == code
    assert f"{status} broken for the test" in said
    assert TOKEN not in said


def test_a_wrong_token_is_named_and_not_shown(api: Api, account: Path, job: Manifest) -> None:
    (account / "token").write_text("other-token")
    code, said = launch(job, account=account)
    assert code == 1
    assert "401" in said
    assert "service account's token" in said
    assert "other-token" not in said


def test_a_server_with_another_certificate_gets_no_token(
    api: Api, account: Path, job: Manifest
) -> None:
    """Only the cluster's own certificate authority is believed."""
    other, _ = _signed_by_itself("other")
    (account / "ca.crt").write_bytes(other.public_bytes(serialization.Encoding.PEM))
    code, said = launch(job, account=account)
    assert (code, api.created) == (1, {})
    assert "can't be reached: SSLCertVerificationError" in said


def test_no_server_at_all(
    account: Path, api: Api, job: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    assert launch(job, account=account) == (
        1, "the API server can't be reached: ConnectionRefusedError",
    )  # fmt: skip


def test_a_file_that_holds_no_rayjob_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "x.yaml"
    wrong.write_text("kind: Pod\n")
    done = subprocess.run(
        [sys.executable, "-m", "cluster.deploy.launch", wrong],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2  # which the CronJob does not try again
    assert "holds no RayJob" in done.stderr
