"""What tests of the commands share: calling one, and stand-ins for what takes long."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest

from cluster.cli import main
from cluster.nights.at_work import AtWork
from cluster.nights.night import Night
from schemas.errors import UsageError
from schemas.jobfile import JobFile
from schemas.protocols import Report
from schemas.specs import JobSpec


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Ended]


@pytest.fixture
def call(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Call:
    """Call `rayward` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("LAKE", "RAYWARD_LAKE", "RAYWARD_TRACEBACK", "DATA"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capfd.readouterr()
        return Ended(int(end.value.code or 0), out, err)

    return run


@dataclass
class FakeRunner:
    """Stands in for `cluster.runner`: what `run_jobs` and `plan_jobs` are to yield or raise."""

    reports: list[Report | BaseException] = field(default_factory=list)
    code: int = 0
    asked: list[tuple[JobFile, tuple[str, ...], str | None]] = field(default_factory=list)
    nights: list[date] = field(default_factory=list)
    during: Callable[[object], None] = lambda progress: None
    turns: list[str] = field(default_factory=list)
    """Whose each report is; otherwise every job has one."""

    def run_jobs(
        self,
        job_file: JobFile,
        *,
        only: Sequence[str],
        address: str | None,
        progress: object,
        night: Night,
        at_work: AtWork,
    ) -> Iterator[Report]:
        self.asked.append((job_file, tuple(only), address))
        self.nights.append(night.date)
        self.during(progress)
        yield from self._told(job_file, at_work)

    def plan_jobs(
        self, job_file: JobFile, only: Sequence[str], at_work: AtWork
    ) -> Iterator[Report]:
        self.asked.append((job_file, tuple(only), None))
        yield from self._told(job_file, at_work)

    def _told(self, job_file: JobFile, at_work: AtWork) -> Iterator[Report]:
        jobs = {spec.name: spec for spec in job_file.jobs}
        turns = self.turns or list(jobs)
        for place, one in enumerate(self.reports):
            at_work.spec = jobs[turns[min(place, len(turns) - 1)]]
            if isinstance(one, BaseException):
                raise one
            yield one

    def select(self, job_file: JobFile, only: Sequence[str]) -> list[JobSpec]:
        names = {job.name for job in job_file.jobs}
        if set(only) - names:
            raise UsageError("No such job in the file", got=", ".join(only))
        return [job for job in job_file.jobs if not only or job.name in only]

    def exit_code(self, reports: Sequence[Report], job_file: JobFile) -> int:
        return self.code


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    """A runner that runs nothing."""
    fake = FakeRunner()
    module = ModuleType("cluster.runner")
    for name in ("run_jobs", "plan_jobs", "select", "exit_code"):
        setattr(module, name, getattr(fake, name))
    monkeypatch.setitem(sys.modules, "cluster.runner", module)
    return fake


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    """A job file of two jobs."""
    path = tmp_path / "job.yaml"
    path.write_text(
        "lake: ${LAKE:-./lake}\n"
        "jobs:\n"
        "  - {kind: ingest, name: kermany, source: data}\n"
        "  - {kind: clean, dataset: kermany}\n"
        "profiles:\n"
        "  smoke: {lake: ./smoke}\n"
    )
    return str(path)
