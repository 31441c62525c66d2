"""A study's trials on a Ray that only pretends: windows, failures, deaths, and what is told."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from cluster import kinds, runner
from cluster.lake.store import LakeStore
from cluster.progress import Progress
from cluster.ray_session import RaySession
from cluster.studies import crew, planning, process, running
from cluster.studies.crew import Crew, Places
from cluster.studies.process import TrialEnd, TrialProcess
from schemas.errors import (
    BundleError,
    CommitConflict,
    LeaseHeld,
    RaywardError,
    RunError,
    SplitError,
)
from schemas.jobfile import JobFile
from schemas.plan import Counts, Plan
from schemas.protocols import Report
from schemas.specs import JobSpec
from schemas.specs.study import StudySpec
from schemas.studies import Trial, trials_of
from tests.cluster.test_shard_run import NODE_DIED, died

Do = Callable[[Trial], TrialEnd]


@dataclass
class PretendedRay:
    """Makes trials in this process when they are waited for."""

    do: Do
    resources: dict[str, float] = field(default_factory=lambda: {"CPU": 2.0})
    options_given: list[dict[str, Any]] = field(default_factory=list)
    hired: int = 0
    killed: int = 0
    most_at_once: int = 0

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def is_initialized(self) -> bool:
        return True

    def remote(self, _kind: type) -> "PretendedRay":
        return self

    def options(self, **given: Any) -> Any:
        self.options_given.append(given)
        outer = self

        class Method:
            @staticmethod
            def remote(trial: Trial) -> Callable[[], TrialEnd]:
                return lambda: outer.do(trial)

        class Actor:
            run = Method()

            @staticmethod
            def remote(**_: object) -> "Actor":
                outer.hired += 1
                return Actor()

        return Actor

    def wait(self, futures: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most_at_once = max(self.most_at_once, len(futures))
        return futures[:1], futures[1:]

    def get(self, future: Callable[[], Any]) -> Any:
        return future()

    def kill(self, _: object) -> None:
        self.killed += 1


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("run", "traceback", cause)


def study(**fields: Any) -> StudySpec:
    given = {"name": "s", "train": {"dataset": "d", "split": "p"}, "grid": {"seed": [0, 1, 2, 3]}}
    return StudySpec.model_validate(given | fields)


def done(_trial: Trial) -> TrialEnd:
    return TrialEnd(1.0, 3, {"val auc": 0.91234, "model": "x"})


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PretendedRay]:
    def make(do: Do = done, **given: Any) -> PretendedRay:
        found = PretendedRay(do, **given)
        monkeypatch.setattr(crew, "ray", found)
        return found

    return make


def ended(spec: StudySpec, places: Places | None = None, world_size: int = 1) -> dict[str, Any]:
    made = Crew("lake", spec.name, places or Places(), world_size)
    return {trial.text: end for trial, end in made.run(trials_of(spec))}


def test_few_processes_make_many_trials(pretend: Callable[..., PretendedRay]) -> None:
    ray = pretend()
    assert list(ended(study())) == ["seed=0", "seed=1", "seed=2", "seed=3"]
    assert (ray.hired, ray.killed, ray.most_at_once) == (2, 2, 2)
    assert ray.options_given == [{"max_restarts": 0, "num_cpus": 1, "num_gpus": 0.0}]


@pytest.mark.parametrize(
    ("resources", "places", "world_size", "hired"),
    [
        ({"CPU": 8.0}, Places(), 1, 4),  # no more than trials
        ({"CPU": 8.0}, Places(at_once=3), 1, 3),
        ({"CPU": 8.0}, Places(), 3, 2),
        ({"CPU": 2.0}, Places(), 4, 1),  # its workers share what there is
        ({"CPU": 8.0, "GPU": 1.0}, Places(gpus=0.5), 1, 2),
        ({"CPU": 8.0, "GPU": 4.0}, Places(gpus=1), 2, 2),
    ],
)
def test_as_many_at_once_as_fit(
    pretend: Callable[..., PretendedRay],
    resources: dict[str, float],
    places: Places,
    world_size: int,
    hired: int,
) -> None:
    ray = pretend(resources=resources)
    ended(study(), places, world_size)
    assert ray.hired == hired
    assert ray.options_given[0]["num_cpus"] == (1 if world_size == 1 else 0)


def test_no_room_for_a_single_trial_is_told(pretend: Callable[..., PretendedRay]) -> None:
    pretend()
    with pytest.raises(RunError, match="No trial fits the cluster .s.: got 2 CPUs and 0 GPUs"):
        ended(study(), Places(gpus=1))


def test_a_trial_that_fails_leaves_the_others_alone(pretend: Callable[..., PretendedRay]) -> None:
    def do(trial: Trial) -> TrialEnd:
        if trial.text == "seed=1":
            raise task_error(BundleError("No such bundle", got="x"))
        if trial.text == "seed=2":
            raise task_error(ZeroDivisionError("patient 12345"))
        return done(trial)

    ray = pretend(do)
    found = ended(study())
    assert isinstance(found["seed=0"], TrialEnd) and isinstance(found["seed=3"], TrialEnd)
    assert str(found["seed=1"]) == "No such bundle: got x."
    assert str(found["seed=2"]).startswith("A trial failed (seed=2): got ZeroDivisionError")
    assert "12345" not in str(found["seed=2"])
    assert ray.hired == 2  # the same processes go on


def test_a_process_that_dies_is_replaced_and_its_trial_tried_once_more(
    pretend: Callable[..., PretendedRay],
) -> None:
    tried: list[str] = []

    def do(trial: Trial) -> TrialEnd:
        tried.append(trial.text)
        if trial.text == "seed=1" or (trial.text == "seed=2" and tried.count("seed=2") < 2):
            raise died()
        return done(trial)

    ray = pretend(do)
    found = ended(study())
    assert [tried.count(f"seed={seed}") for seed in range(4)] == [1, 2, 2, 1]
    assert "ended before it was done (seed=1): got 2 deaths" in str(found["seed=1"])
    assert isinstance(found["seed=2"], TrialEnd)
    assert ray.hired == 5


def test_a_lost_node_counts_less_than_a_death(pretend: Callable[..., PretendedRay]) -> None:
    losses = {"left": 8}

    def do(trial: Trial) -> TrialEnd:
        if trial.text == "seed=0" and losses["left"]:
            losses["left"] -= 1
            raise died(NODE_DIED)
        return done(trial)

    pretend(do)
    assert all(isinstance(end, TrialEnd) for end in ended(study()).values())


def test_a_process_that_can_not_start_ends_the_study(pretend: Callable[..., PretendedRay]) -> None:
    def do(_trial: Trial) -> TrialEnd:
        error = ActorDiedError()
        error._actor_init_failed = True
        raise error

    pretend(do)
    with pytest.raises(RaywardError, match=r"No process could start \(s\)"):
        ended(study())


class Kinds:
    """Stands in for the kinds a trial is made of."""

    def __init__(self, run: Callable[[JobSpec], Report], open_jobs: set[str]) -> None:
        self._run, self.open = run, open_jobs

    def __getitem__(self, kind: str) -> kinds.Kind:
        def plan(job: JobSpec, _store: object) -> Plan:
            if "missing" in self.open:
                raise SplitError("The split has no folds")
            import pyarrow as pa

            rows = [job.name] if f"{kind} {job.name}" in self.open else []
            return Plan(kind, job.name, (kind,), {}, {}, pa.table({"x": rows}), ())

        def run(job: JobSpec, _pool: object, _store: object) -> Report:
            return self._run(job)

        return kinds.Kind(plan, run)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kinds]:
    def install(run: Callable[[JobSpec], Report], open_jobs: set[str]) -> Kinds:
        found = Kinds(run, open_jobs)
        monkeypatch.setattr(process, "KINDS", found)
        monkeypatch.setattr(planning, "KINDS", found)
        monkeypatch.setattr(process, "_PAUSE_S", 0.0)
        return found

    return install


def test_jobs_run_in_order_and_wait_for_others_at_the_same_work(
    tmp_path: Path, use: Callable[..., Kinds]
) -> None:
    ran: list[str] = []

    def run(job: JobSpec) -> Report:
        ran.append(job.kind)
        if job.kind == "score" and ran.count("score") < 3:
            raise LeaseHeld("Another run holds this work")
        if job.kind == "evaluate" and ran.count("evaluate") < 2:
            raise CommitConflict("A commit failed")
        rejected = 3 if job.kind == "score" else 0
        return Report(job.kind, job.name, "published", counts=Counts(7, 0, rejected))

    use(run, set())
    root = str(tmp_path / "lake")
    LakeStore.open(root, create=True)
    end = TrialProcess(root, "s", together=False).run(trials_of(study())[0])
    assert ran == ["train", "score", "score", "score", "evaluate", "evaluate"]
    assert (end.worked, end.rejecting) == (3, ("score",))


def test_what_stays_another_drivers_fails_the_trial(
    tmp_path: Path, use: Callable[..., Kinds], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_job: JobSpec) -> Report:
        raise LeaseHeld("Another run holds this work")

    use(run, set())
    monkeypatch.setattr(process, "_PATIENCE_S", 0.02)
    root = str(tmp_path / "lake")
    LakeStore.open(root, create=True)
    with pytest.raises(LeaseHeld):
        TrialProcess(root, "s", together=False).run(trials_of(study())[0])


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
