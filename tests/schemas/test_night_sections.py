"""The sections `night` and `notify` of a job file, and a score job's gate and budget."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import JobFileError, Mistake
from schemas.jobfile import JobFile, load
from schemas.jobschema import job_file_schema
from schemas.specs.gate import Budget, Gate
from schemas.specs.night import EVENTS, NightSpec
from schemas.specs.score import ScoreSpec

NIGHTLY = Path(__file__).resolve().parents[2] / "studies" / "nightly.yaml"
JOBS = "lake: l\njobs:\n  - {kind: clean, dataset: d}\n"
Read = Callable[..., JobFile]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def from_text(text: str, profile: str | None = None) -> JobFile:
        file = tmp_path / "job.yaml"
        file.write_text(JOBS + text, encoding="utf-8")
        return load(file, profile=profile, env={"CLOSES": "04:30"})

    return from_text


def mistakes(read: Read, text: str) -> list[Mistake]:
    with pytest.raises(JobFileError) as caught:
        read(text)
    return list(caught.value.mistakes)


def test_a_file_without_sections_never_closes_and_tells_nobody(read: Read) -> None:
    file = read("")
    assert (file.night, file.notify) == (NightSpec(), None)


def test_sections_are_read_with_their_variables(read: Read) -> None:
    file = read('night: {closes: "${CLOSES:-06:00}", zone: Europe/Berlin}\nnotify: {on: [held]}\n')
    assert file.night == NightSpec(closes="04:30", zone="Europe/Berlin")
    assert file.notify is not None
    assert (file.notify.on, file.notify.urls_from) == (("held",), "RAYWARD_NOTIFY_URLS")


def test_a_profile_replaces_entries_of_a_section(read: Read) -> None:
    text = (
        'night: {closes: "06:00", zone: Europe/Berlin}\n'
        'profiles:\n  early: {night: {closes: "03:00"}, notify: {urls_from: OTHERS}}\n'
    )
    assert read(text).notify is None
    file = read(text, "early")
    assert file.night == NightSpec(closes="03:00", zone="Europe/Berlin")
    assert file.notify is not None
    assert (file.notify.urls_from, file.notify.on) == ("OTHERS", EVENTS)


@pytest.mark.parametrize(
    ("text", "line", "field", "what"),
    [
        ("night: 3\n", 4, "night", "is no mapping"),
        ("notify: [held]\n", 4, "notify", "is no mapping"),
        ("night:\n  closing: '06:00'\n", 5, "night.closing", "did you mean closes?"),
        ("night:\n  closes: 25:00\n", 5, "night.closes", "characters that are not allowed"),
        ("night:\n  zone: Mars\n", 5, "night.zone", "is no time zone"),
        ("notify:\n  on:\n    - hold\n", 6, "notify.on[0]", "did you mean held?"),
        ("notify:\n  urls_from: 'json://secret'\n", 5, "notify.urls_from", "not allowed here"),
        (
            "notify:\n  message:\n    body: $wat\n",
            6,
            "notify.message.body",
            "names $wat; a",
        ),
        ("notify:\n  message:\n    title: 5 $\n", 6, "notify.message.title", "$ without a name"),
        ("notify:\n  messages:\n    hold: {}\n", 6, "notify.messages.hold", "mean held?"),
    ],
)
def test_mistakes_in_sections_are_told_by_line(
    read: Read, text: str, line: int, field: str, what: str
) -> None:
    found = mistakes(read, text)
    assert [(one.line, one.field) for one in found] == [(line, field)]
    assert what in found[0].what


def test_a_secret_in_a_section_is_refused_and_not_shown(read: Read) -> None:
    (found,) = mistakes(read, "notify:\n  message: {title: 'https://me:hunter2@host/'}\n")
    assert "holds a secret" in found.what
    assert "hunter2" not in str(found)


def test_the_gate_and_the_budget_change_no_result() -> None:
    plain = ScoreSpec(dataset="d", model="m")
    strict = ScoreSpec(dataset="d", model="m", gate=Gate(psi=0.1), budget=Budget(images=5))
    assert plain.identity() == strict.identity()
    assert ScoreSpec(dataset="d", model="m", gate=Gate(psi=None)).gate == Gate(psi=None)


def test_the_shipped_night_says_what_its_defaults_are() -> None:
    file = load(NIGHTLY, env={})
    score = file.jobs[-1]
    assert isinstance(score, ScoreSpec)
    assert (score.model, score.gate) == ("nightly", Gate())
    assert score.budget is not None
    assert file.night == NightSpec(closes="06:00")
    assert file.notify is not None


def test_the_schema_of_job_files_has_the_sections() -> None:
    schema = job_file_schema()
    assert {"night", "notify"} <= set(schema["properties"])
    assert "closes" in schema["$defs"]["night"]["properties"]
    assert "Message" in schema["$defs"]
    json.dumps(schema)
