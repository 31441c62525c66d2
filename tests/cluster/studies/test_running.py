"""A study as a job: what is made, what is counted and told, and the exit code."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import runner
from cluster.lake.store import LakeStore
from cluster.progress import Progress
from cluster.ray_session import RaySession
from cluster.studies import running
from cluster.studies.process import TrialEnd
from schemas.errors import BundleError, LeaseHeld, SplitError
from schemas.jobfile import JobFile
from schemas.plan import Counts
from schemas.protocols import Report
from schemas.specs import JobSpec
from schemas.studies import Trial
from tests.cluster.studies.pretended import (
    Kinds,
    PretendedRay,
    QuietBoard,
    done,
    study,
    task_error,
)


def run_file(spec: JobSpec, root: str, *others: JobSpec) -> tuple[list[Report], int, str]:
    shown = io.StringIO()
    job_file = JobFile(root, (spec, *others), "job.yaml")
    reports = list(
        runner.run_jobs(job_file, only=(), address=None, progress=Progress(shown, every_s=0))
    )
    return reports, runner.exit_code(reports, job_file), shown.getvalue()


def test_a_study_counts_its_trials_and_names_those_that_failed(
    tmp_path: Path,
    pretend: Callable[..., PretendedRay],
    use: Callable[..., Kinds],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RaySession, "start", lambda self: None)
    monkeypatch.setattr(running, "open_board", QuietBoard)
    kinds_of = use(
        lambda job: Report(job.kind, job.name, "published"),
        {"train s-seed1", "evaluate s-seed2", "train s-seed3"},
    )
    made: list[str] = []

    def do(trial: Trial) -> TrialEnd:
        made.append(trial.text)
        if trial.text == "seed=2":
            raise task_error(BundleError("No such bundle"))
        return done(trial)

    pretend(do)
    root = str(tmp_path / "lake")
    later = study(name="later")
    (report,), code, shown = run_file(study(), root, later)
    assert made == ["seed=1", "seed=2", "seed=3"]
    assert (report.status, code) == ("failed", 1)  # and the later study did not run
    assert report.counts == Counts(done=2, up_to_date=1, rejected=1)
    assert (report.counts.input, report.unit) == (4, "trials")
    assert report.failures == {"seed=2": "No such bundle."}
    assert "s: seed=1: done in 1.0 s, val auc 0.9123" in shown
    assert "s: seed=2: failed: No such bundle." in shown
    assert re.search(r"4 of 4 trials \(100%\).*1 rejected", shown)

    kinds_of.open = set()
    (report, _), code, _ = run_file(study(), root, later)
    assert (report.status, code, report.counts) == ("up_to_date", 0, Counts(up_to_date=4))


def test_a_plan_says_how_many_trials_are_left(tmp_path: Path, use: Callable[..., Kinds]) -> None:
    kinds_of = use(lambda job: Report(job.kind, job.name, "published"), {"score s-seed2"})
    root = str(tmp_path / "lake")
    LakeStore.open(root, create=True)
    job_file = JobFile(root, (study(),), "job.yaml")
    (report,) = runner.plan_jobs(job_file, ())
    assert (report.status, report.unit, report.counts) == (
        "planned",
        "trials",
        Counts(done=1, up_to_date=3),
    )
    kinds_of.open = {"missing"}
    with pytest.raises(SplitError, match="has no folds"):
        list(runner.plan_jobs(job_file, ()))
    with pytest.raises(SplitError, match="has no folds"):
        run_file(study(), root)


def test_a_study_has_one_driver(tmp_path: Path, use: Callable[..., Kinds]) -> None:
    use(lambda job: Report(job.kind, job.name, "published"), set())
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    other = LakeStore(store.storage)
    with store.lease(("study", "s")), pytest.raises(LeaseHeld):
        running.run_study(study(), other, RaySession(), Progress(io.StringIO()))


def test_trials_that_rejected_much_end_with_code_3(
    tmp_path: Path,
    pretend: Callable[..., PretendedRay],
    use: Callable[..., Kinds],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RaySession, "start", lambda self: None)
    monkeypatch.setattr(running, "open_board", QuietBoard)
    use(lambda job: Report(job.kind, job.name, "published"), {"train s-seed1", "train s-seed3"})
    pretend(lambda trial: TrialEnd(1.0, 3, rejecting=("train", "score")[: trial.text == "seed=3"]))
    (report, _), code, _ = run_file(study(), str(tmp_path / "lake"), study(name="later"))
    assert (report.status, code) == ("published", 3)
    assert report.facts == {"trials that rejected much": "seed=3 (train)"}
