"""Who is told what: through Apprise to a server of the test; and what if nobody listens."""

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cluster.nights.notifying import Messenger, Silence, apprise_sender, messenger
from schemas.specs.night import NotifySpec

# Apprise's module for encrypted mail asks for a module that Python 3.13 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

COMMON = {"night": "2026-11-21", "lake": "s3://bucket/lake"}
FACTS = {"job": "scores", "what": "lungs@2: held: psi 3.1", "counts": "images: 5 done"}


class Inbox(HTTPServer):
    """Keeps what is posted to it."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.letters: list[dict[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Inbox

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.letters.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    server = Inbox()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def url(server: Inbox) -> str:
    return f"json://user:very-secret@127.0.0.1:{server.server_port}/"


def test_a_message_arrives_as_the_job_file_words_it(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setenv("NIGHT_URLS", f"{url(inbox)}\n{url(inbox)}")
    spec = NotifySpec.model_validate(
        {
            "urls_from": "NIGHT_URLS",
            "on": ["held"],
            "messages": {"held": {"title": "$job $event $$5", "body": "$what\n$remedy\n$counts"}},
        }
    )
    bell = messenger(spec, night=date(2026, 11, 21), lake="lake", warn=warnings.append)
    bell.tell("held", FACTS)
    bell.tell("late", {"job": "the night is"})  # nobody asked for it
    assert [(one["title"], one["message"]) for one in inbox.letters] == [
        ("scores held $5", "lungs@2: held: psi 3.1\nimages: 5 done")
    ] * 2
    assert warnings == []


def test_the_usual_words_name_what_happened() -> None:
    sent: list[tuple[str, str]] = []

    def send(title: str, body: str) -> bool:
        sent.append((title, body))
        return True

    Messenger(NotifySpec(), send, print, COMMON).tell("held", FACTS)
    assert sent == [
        (
            "Rayward, night of 2026-11-21: scores held",
            "lungs@2: held: psi 3.1\nimages: 5 done\nLake: s3://bucket/lake",
        )
    ]


@pytest.mark.parametrize(
    ("lake", "told"),
    [
        ("s3://key:secret@bucket/lake", "s3://***@bucket/lake"),
        ("s3://key:sec/ret+secret@bucket/lake", "s3://***@bucket/lake"),
        ("s3://:secret@bucket/lake", "s3://***@bucket/lake"),
        ("s3://bucket/lake?secret_access_key=a+secret", "s3://bucket/lake?secret_access_key=***"),
        (
            "s3://bucket/lake?region=eu&secret_key=secret",
            "s3://bucket/lake?region=eu&secret_key=***",
        ),
    ],
)
def test_credentials_do_not_leave_with_a_message(lake: str, told: str) -> None:
    sent: list[str] = []

    def send(title: str, body: str) -> bool:
        sent.append(body)
        return True

    Messenger(NotifySpec(), send, print, COMMON | {"lake": lake}).tell("failed", FACTS)
    assert sent[0].splitlines()[-1] == f"Lake: {told}"


def test_who_refuses_or_breaks_costs_a_warning_only(inbox: Inbox) -> None:
    warnings: list[str] = []
    inbox.status = 500
    send = apprise_sender("URLS", warnings.append, {"URLS": url(inbox)})
    assert send is not None
    Messenger(NotifySpec(), send, warnings.append, COMMON).tell("failed", FACTS)

    def broken(title: str, body: str) -> bool:
        raise RuntimeError("https://user:very-secret@host")

    Messenger(NotifySpec(), broken, warnings.append, COMMON).tell("late", FACTS)
    assert warnings == [
        "not everybody was told (failed): a service of Apprise refused",
        "nobody was told (late): RuntimeError",
    ]


def test_a_server_that_is_not_there_costs_a_warning_only(inbox: Inbox) -> None:
    warnings: list[str] = []
    nowhere = "json://127.0.0.1:9/"  # discard: nothing listens
    send = apprise_sender("URLS", warnings.append, {"URLS": f"{nowhere} {url(inbox)}"})
    assert send is not None
    Messenger(NotifySpec(), send, warnings.append, COMMON).tell("failed", FACTS)
    assert len(inbox.letters) == 1
    assert warnings == ["not everybody was told (failed): a service of Apprise refused"]


@pytest.mark.parametrize(
    ("urls", "told"),
    [
        ("", ["nobody is told: URLS holds no Apprise URL"]),
        ("nonsense://very-secret", ["URLS: URL 1 of 1 is none that Apprise knows"]),
    ],
)
def test_without_a_usable_url_nobody_is_told(urls: str, told: list[str]) -> None:
    warnings: list[str] = []
    assert apprise_sender("URLS", warnings.append, {"URLS": urls}) is None
    assert warnings == told


def test_silence_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYWARD_NOTIFY_URLS", raising=False)
    warnings: list[str] = []
    bell = messenger(NotifySpec(), night=date(2026, 1, 1), lake="l", warn=warnings.append)
    assert isinstance(bell, Silence)
    bell.tell("failed", FACTS)
    assert len(warnings) == 1
