"""Which trials of a study are compared with which, and when."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.lake.store import LakeStore
from cluster.progress import Progress
from cluster.ray_session import RaySession
from cluster.studies import comparing, running
from cluster.studies.comparing import open_comparisons
from cluster.studies.process import TrialEnd
from jobs.report.outcomes import Figure, Measured
from schemas.errors import BundleError
from schemas.plan import Counts
from schemas.protocols import Report
from schemas.specs.evaluate import EvaluateSpec
from schemas.specs.study import StudySpec
from schemas.studies import Trial, trials_of
from tests.cluster.studies.pretended import Kinds, PretendedRay, QuietBoard, done, study, task_error

GRID = {"net": {"big": {}, "small": {}}, "fold": [0, 1]}


def has_figures(monkeypatch: pytest.MonkeyPatch, figures: Mapping[str, dict[str, float]]) -> None:
    """Let the outcomes of these bundles have figures of the validation part."""

    def measured(spec: StudySpec, _: object) -> list[Measured]:
        outcomes = [one for trial in trials_of(spec) for one in trial.outcomes]
        return [
            Measured(
                one,
                {
                    ("val", "", name): Figure(value, None, None)
                    for name, value in figures.get(one.model, {}).items()
                },
            )
            for one in outcomes
        ]

    monkeypatch.setattr(comparing, "measured", measured)


def compared(spec: StudySpec, tmp_path: Path, kinds: Any = None) -> dict[str, str | None]:
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    found = {}
    for one in open_comparisons(spec, store):
        (job,) = one.jobs
        assert isinstance(job, EvaluateSpec) and one.world_size == 1
        assert one.text.startswith(f"{job.trial} against ")
        found[job.model] = job.against
    return found


EVERY = {"s-big-fold0", "s-big-fold1", "s-small-fold0", "s-small-fold1"}


@pytest.fixture(autouse=True)
def all_open(use: Callable[..., Kinds], monkeypatch: pytest.MonkeyPatch) -> Kinds:
    names = {name for one in EVERY for name in (one, f"{one}-svm")}
    kinds = use(
        lambda job: Report(job.kind, job.name, "published"),
        {f"evaluate {name}" for name in names},
    )
    monkeypatch.setattr(comparing, "KINDS", kinds)
    return kinds


def test_a_trial_is_compared_with_the_one_that_differs_in_the_named_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_figures(monkeypatch, {name: {"auc": 0.5} for name in EVERY})
    assert compared(study(grid=GRID, against={"net": "small"}), tmp_path) == {
        "s-big-fold0": "s-small-fold0",
        "s-big-fold1": "s-small-fold1",
    }
    assert compared(study(grid=GRID), tmp_path) == {}
    has_figures(monkeypatch, {name: {"auc": 0.5} for name in EVERY - {"s-small-fold0"}})
    # The trial of the other fold failed; it is told of anyway.
    assert compared(study(grid=GRID, against={"net": "small"}), tmp_path) == {
        "s-big-fold1": "s-small-fold1"
    }


def test_heads_of_a_trial_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for one in EVERY for name in (one, f"{one}-svm")]
    has_figures(monkeypatch, {name: {"auc": 0.5} for name in names})
    both = study(grid=GRID, heads=["network", "svm"], against={"head": "network"})
    assert compared(both, tmp_path) == {f"{one}-svm": one for one in EVERY}


@pytest.mark.parametrize(
    ("choose_by", "rivals"),
    [("auc", ("s-big-fold0", "s-small-fold1")), ("ece", ("s-small-fold0", "s-big-fold1"))],
)
def test_the_best_is_that_of_the_validation_part_on_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choose_by: str, rivals: tuple[str, str]
) -> None:
    figures = {
        "s-big-fold0": {"auc": 0.9, "ece": 0.2},
        "s-big-fold1": {"auc": 0.7, "ece": 0.0},
        "s-small-fold0": {"auc": 0.6, "ece": 0.1},
        "s-small-fold1": {"auc": 0.8, "ece": 0.3},
    }
    has_figures(monkeypatch, figures)
    spec = study(grid=GRID, against="best", choose_by=choose_by)
    wanted = {name: rivals[int(name[-1])] for name in EVERY - set(rivals)}
    assert compared(spec, tmp_path) == wanted


def test_trials_are_compared_after_all_are_made_and_what_fails_is_named(
    tmp_path: Path,
    pretend: Callable[..., PretendedRay],
    all_open: Kinds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RaySession, "start", lambda self: None)
    monkeypatch.setattr(running, "open_board", QuietBoard)
    has_figures(monkeypatch, {name: {"auc": 0.5} for name in EVERY})
    all_open.open = {"evaluate s-small-fold0", "evaluate s-big-fold0", "evaluate s-big-fold1"}
    made: list[str] = []

    def do(trial: Trial) -> TrialEnd:
        made.append(trial.text)
        if trial.text.startswith("net=big, fold=1 against"):
            raise task_error(BundleError("The classes are not those of the model"))
        return done(trial)

    pretend(do, resources={"CPU": 1.0})
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    shown = io.StringIO()
    spec = study(grid=GRID, against={"net": "small"})
    report = running.run_study(spec, store, RaySession(), Progress(shown, every_s=0))
    assert made == [
        "net=big, fold=0",
        "net=big, fold=1",
        "net=small, fold=0",
        "net=big, fold=0 against net=small, fold=0",
        "net=big, fold=1 against net=small, fold=1",
    ]
    assert report.counts == Counts(done=3, up_to_date=1)  # comparisons are no trials
    assert (report.counts.input, report.status) == (4, "failed")
    assert report.failures == {made[-1]: "The classes are not those of the model."}
    assert "s: net=big, fold=0 against net=small, fold=0: done in" in shown.getvalue()
