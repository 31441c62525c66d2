"""The commands of nights: marking, naming a night, progress of slices, and telling people."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.lake.decisions import RunStatus
from cluster.lake.store import LakeStore
from cluster.nights import notifying
from jobs.bundles import model_row
from schemas.protocols import Report
from tests.cluster.cli.conftest import Call, FakeRunner
from tests.cluster.nights.told import Told
from tests.jobs.seeding import bundle_config, seed


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """A lake with two versions of a bundle."""
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    rows = [
        model_row(bundle_config("lungs", one * 16), version, nightly=False)
        for version, one in ((1, "a"), (2, "b"))
    ]
    seed(store, {"models": rows})
    return store.root


def test_a_bundle_is_marked_and_listed_once(call: Call, lake: str) -> None:
    ended = call("models", "lungs@1", "--nightly", "--json")
    assert (ended.code, ended.err) == (0, "lungs@1 is marked for nights.\n")
    assert json.loads(ended.out)["nightly"] is True
    listed = [json.loads(line) for line in _lines(call("models", "--json").out)]
    assert [(one["version"], one["nightly"]) for one in listed] == [(1, True), (2, False)]
    assert "lungs@1 is not marked" in call("models", "lungs@1", "--no-nightly").err
    status = call("status", "--json").out.splitlines()
    assert [json.loads(line)["kind"] for line in status].count("mark") == 2


def _lines(out: str) -> list[str]:
    found = json.loads(out) if out.startswith("[") else None
    return [json.dumps(one) for one in found] if found is not None else out.splitlines()


@pytest.mark.usefixtures("lake")
def test_what_can_not_be_marked_is_told(call: Call) -> None:
    nameless = call("models", "--nightly")
    assert (nameless.code, "NAME@VERSION" in nameless.err) == (2, True)
    unknown = call("models", "lungs@9", "--nightly")
    assert (unknown.code, "No such bundle" in unknown.err) == (1, True)


def test_status_shows_how_far_a_version_is(
    call: Call, lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_run = RunStatus(
        *("R3", "score", "scores", "published", 0, 0, 0, 60, ""),
        model="lungs@2",
        deferred=40,
        progress=1 / 3,
    )
    monkeypatch.setattr("cluster.lake.decisions.list_runs", lambda storage, limit: [slice_run])
    (line,) = [one for one in call("status").out.splitlines() if one.startswith("R3")]
    assert "33.3% of the archive, 40 to go" in line
    assert "lungs@2" in line.split()
    told = json.loads(call("status", "--json").out)
    assert (told["model"], told["deferred"], told["progress"]) == ("lungs@2", 40, 1 / 3)


def test_a_night_may_be_named(call: Call, runner: FakeRunner, job_file: str) -> None:
    assert call("run", job_file, "--night", "2026-11-09").code == 0
    assert call("run", job_file).code == 0
    assert runner.nights[0] == date(2026, 11, 9)
    assert abs(runner.nights[1] - datetime.now(UTC).date()).days <= 1
    wrong = call("run", job_file, "--night", "9 November")
    assert wrong.code == 2
    assert "--night" in wrong.err


def test_a_held_run_is_told_to_whom_the_file_names(
    call: Call, runner: FakeRunner, job_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bell, asked = Told(), []

    def messenger(spec: Any, *, night: date, lake: str, warn: object) -> Told:
        asked.append((spec.urls_from, night, lake))
        return bell

    monkeypatch.setattr(notifying, "messenger", messenger)
    held = Report("clean", "clean", "held", "R9", facts={"gate": "held: psi 3"})
    runner.reports, runner.code = [held], 4
    assert call("run", job_file, "--night", "2026-11-09").code == 4
    assert bell.events == [], "the file names nobody"
    with Path(job_file).open("a") as file:
        file.write("notify: {urls_from: OUR_URLS}\n")
    ended = call("run", job_file, "--night", "2026-11-09")
    assert (ended.code, bell.names) == (4, ["held"])
    assert asked == [("OUR_URLS", date(2026, 11, 9), "./lake")]
    assert "rayward publish R9" in ended.out


def test_a_version_that_waits_says_for_what(call: Call, runner: FakeRunner, job_file: str) -> None:
    facts = {"model": "lungs@2", "waits for": "a decision on run R9"}
    runner.reports = [Report("clean", "clean", "waiting", facts=facts)]
    out = call("run", job_file).out
    assert "clean: waits" in out
    assert "waits for a decision on run R9" in out
