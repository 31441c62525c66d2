"""A study's processes on a Ray that only pretends: windows, failures, deaths, lost machines."""

from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    OwnerDiedError,
    RaySystemError,
    WorkerCrashedError,
)

from cluster.deaths import Deaths, Fate, fate_of
from cluster.studies import crew
from cluster.studies.crew import Crew
from cluster.studies.process import TrialEnd, Unready
from schemas.errors import BundleError, LakeError, RaywardError, RunError
from schemas.specs.study import StudySpec
from schemas.studies import Trial, trials_of
from tests.cluster.studies.pretended import (
    PretendedRay,
    done,
    study,
    task_error,
    watch,
    workplace,
)
from tests.cluster.test_shard_run import LOW_MEMORY, NODE_DIED, died


def ended(
    spec: StudySpec, at_once: int | None = None, told: list[str] | None = None, **place: Any
) -> dict[str, Any]:
    made = Crew(workplace(**place), at_once, watch(told))
    return {trial.text: end for trial, end in made.run(trials_of(spec))}


def test_few_processes_make_many_trials(pretend: Callable[..., PretendedRay]) -> None:
    ray = pretend()
    assert list(ended(study())) == ["seed=0", "seed=1", "seed=2", "seed=3"]
    assert (ray.hired, ray.killed, ray.most_at_once) == (2, 2, 2)
    assert ray.options_given == [{"max_restarts": 0, "num_cpus": 1, "num_gpus": 0.0}] * 2


@pytest.mark.parametrize(
    ("resources", "at_once", "place", "hired"),
    [
        ({"CPU": 8.0}, None, {}, 4),  # no more than trials
        ({"CPU": 8.0}, 3, {}, 3),
        ({"CPU": 8.0}, None, {"world_size": 3}, 2),
        ({"CPU": 2.0}, None, {"world_size": 4}, 1),  # its workers share what there is
        ({"CPU": 8.0, "GPU": 1.0}, None, {"gpus": 0.5}, 2),
        ({"CPU": 8.0, "GPU": 1.0}, None, {"gpus": 0.1}, 4),
        ({"CPU": 8.0, "GPU": 4.0}, None, {"gpus": 1, "world_size": 2}, 2),
    ],
)
def test_as_many_at_once_as_fit(
    pretend: Callable[..., PretendedRay],
    resources: dict[str, float],
    at_once: int | None,
    place: dict[str, Any],
    hired: int,
) -> None:
    ray = pretend(resources=resources)
    ended(study(), at_once, **place)
    assert ray.hired == hired
    assert ray.options_given[0]["num_cpus"] == (0 if "world_size" in place else 1)


def test_a_trial_lies_on_one_node(pretend: Callable[..., PretendedRay]) -> None:
    """0.7 of a GPU fits each of two nodes once; of both together a third would seem to."""
    node = {"CPU": 4.0, "GPU": 1.0}
    ray = pretend(cluster={"a": node, "b": node, "c": node})
    ended(study(), gpus=0.7)
    assert ray.most_at_once == 3


def test_no_room_for_a_single_trial_is_told(pretend: Callable[..., PretendedRay]) -> None:
    pretend()
    with pytest.raises(RunError, match="No trial fits the cluster .s.: got 2 CPUs and 0 GPUs"):
        ended(study(), gpus=1)


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


def test_a_trial_that_fails_on_a_gpu_ends_its_process(pretend: Callable[..., PretendedRay]) -> None:
    """An error of CUDA leaves the process useless, whatever is tried next."""

    def do(trial: Trial) -> TrialEnd:
        if trial.text == "seed=0":
            raise task_error(RuntimeError("device-side assert triggered"))
        return done(trial)

    ray = pretend(do, resources={"CPU": 4.0, "GPU": 1.0})
    found = ended(study(), gpus=1)
    assert [isinstance(end, TrialEnd) for end in found.values()] == [False, True, True, True]
    assert ray.events[:4] == ["hire p0", "give p0 seed=0", "kill p0", "hire p1"]


def init_failed() -> ActorDiedError:
    error = ActorDiedError()
    error._actor_init_failed = True
    return error


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (died(), Fate.PROCESS),
        (died(NODE_DIED), Fate.NODE),
        (died(LOW_MEMORY), Fate.MEMORY),
        (init_failed(), Fate.START),
        (OutOfMemoryError(LOW_MEMORY), Fate.MEMORY),
        (WorkerCrashedError(), Fate.PROCESS),
        (NodeDiedError("node"), Fate.NODE),
        (ActorUnavailableError("away", b"0" * 16), Fate.NODE),
        (OwnerDiedError("0" * 56, "", ""), Fate.NODE),
        (RaySystemError("lost"), Fate.NODE),
    ],
)
def test_the_end_of_a_process_says_whose_fault_it_was(error: Any, fate: Fate) -> None:
    assert fate_of(error) is fate


def test_deaths_of_two_kinds_count_together_and_lost_nodes_apart() -> None:
    deaths = Deaths()
    assert all(deaths.note("a", Fate.NODE) for _ in range(9))
    assert deaths.note("a", Fate.PROCESS) and deaths.note("b", Fate.PROCESS)
    assert not deaths.note("a", Fate.MEMORY)
    assert deaths.told("a") == "9 lost nodes, 1 deaths for want of memory, 1 deaths"
    assert not deaths.note("a", Fate.NODE)


@pytest.mark.parametrize(
    "error", [died(), died(LOW_MEMORY), OutOfMemoryError(LOW_MEMORY), WorkerCrashedError()]
)
def test_a_process_that_dies_is_replaced_and_its_trial_tried_once_more(
    pretend: Callable[..., PretendedRay], error: Exception
) -> None:
    tried: list[str] = []

    def do(trial: Trial) -> TrialEnd:
        tried.append(trial.text)
        if trial.text == "seed=1" or (trial.text == "seed=2" and tried.count("seed=2") < 2):
            raise error
        return done(trial)

    ray = pretend(do)
    found = ended(study())
    assert [tried.count(f"seed={seed}") for seed in range(4)] == [1, 2, 2, 1]
    assert "ended before it was done (seed=1): got 2 deaths" in str(found["seed=1"])
    assert isinstance(found["seed=2"], TrialEnd)
    assert ray.hired == ray.killed == 5


def test_a_half_dead_process_is_ended_before_another_takes_its_trial(
    pretend: Callable[..., PretendedRay],
) -> None:
    """Ray may only fail to reach it, while it goes on writing."""
    losses = ["once"]

    def do(trial: Trial) -> TrialEnd:
        if losses:
            losses.pop()
            raise ActorUnavailableError("away", b"0" * 16)
        return done(trial)

    ray = pretend(do, resources={"CPU": 1.0})
    assert isinstance(ended(study(grid={"seed": [0]}))["seed=0"], TrialEnd)
    assert ray.events == [
        "hire p0", "give p0 seed=0", "kill p0", "hire p1", "give p1 seed=0", "kill p1",
    ]  # fmt: skip


def test_a_lost_node_counts_less_than_a_death(pretend: Callable[..., PretendedRay]) -> None:
    losses = {"left": 8}

    def do(trial: Trial) -> TrialEnd:
        if trial.text == "seed=0" and losses["left"]:
            losses["left"] -= 1
            raise died(NODE_DIED) if losses["left"] % 2 else NodeDiedError("node")
        return done(trial)

    pretend(do)
    assert all(isinstance(end, TrialEnd) for end in ended(study()).values())


def test_the_number_at_work_follows_the_cluster(
    pretend: Callable[..., PretendedRay], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two machines one is lost while two trials run, then two come."""
    node = {"CPU": 1.0}
    at_work: list[tuple[str, int]] = []
    lost: list[str] = []

    def do(trial: Trial) -> TrialEnd:
        at_work.append((trial.text, given() - len(at_work)))
        if trial.text == "seed=0" and not lost:
            lost.append("b")
            del ray.cluster["b"]
            raise NodeDiedError("node b")
        if trial.text == "seed=2":
            ray.cluster |= {"c": node, "d": node}
        return done(trial)

    def given() -> int:
        return sum(event.startswith("give") for event in ray.events)

    ray = pretend(do, cluster={"a": node, "b": node})
    found = ended(study(grid={"seed": [0, 1, 2, 3, 4, 5, 6]}))
    assert all(isinstance(end, TrialEnd) for end in found.values()) and len(found) == 7
    # Two at once; after the loss the trial that was left, then one at a time; at last three.
    assert at_work == [
        ("seed=0", 2), ("seed=1", 1), ("seed=0", 1), ("seed=2", 1),
        ("seed=3", 3), ("seed=4", 3), ("seed=5", 2), ("seed=6", 1),
    ]  # fmt: skip


def test_a_study_waits_for_a_machine_but_not_for_ever(
    pretend: Callable[..., PretendedRay], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = {"s": 0.0}
    told: list[str] = []
    monkeypatch.setattr(crew.time, "monotonic", lambda: now["s"])

    def sleep(seconds: float) -> None:
        now["s"] += 100
        if now["s"] == back_s:
            ray.cluster["b"] = {"CPU": 1.0}
            del ray.cluster["a"]

    monkeypatch.setattr(crew.time, "sleep", sleep)

    def do(trial: Trial) -> TrialEnd:
        if "CPU" in ray.cluster.get("a", {}):
            ray.cluster["a"] = {}
            raise died(NODE_DIED)
        return done(trial)

    back_s = 500
    ray = pretend(do, cluster={"a": {"CPU": 1.0}})
    assert all(isinstance(end, TrialEnd) for end in ended(study(), told=told).values())
    assert told == ["no machine is left that a trial fits on; waiting for one"]
    back_s = -1
    ray = pretend(do, cluster={"a": {"CPU": 1.0}})
    with pytest.raises(RunError, match="No trial fits the cluster"):
        ended(study())


def test_a_process_that_can_not_start_ends_the_study_if_none_can(
    pretend: Callable[..., PretendedRay],
) -> None:
    def do(_trial: Trial) -> TrialEnd:
        raise init_failed()

    pretend(do)
    with pytest.raises(RaywardError, match=r"No process could start \(s\)"):
        ended(study())


def test_a_start_that_fails_now_and_then_costs_a_retry(
    pretend: Callable[..., PretendedRay],
) -> None:
    tried: list[str] = []

    def do(trial: Trial) -> TrialEnd:
        tried.append(trial.text)
        if trial.text != "seed=0" and tried.count(trial.text) < 3:
            raise init_failed()
        return done(trial)

    pretend(do)
    assert all(isinstance(end, TrialEnd) for end in ended(study()).values())


def test_a_machine_that_can_not_open_the_lake_is_passed_over(
    pretend: Callable[..., PretendedRay],
) -> None:
    node = {"CPU": 1.0}
    closed = LakeError("The lake can't be opened from this machine", got="OSError")
    seen: list[str] = []

    def do(trial: Trial) -> TrialEnd | Unready:
        seen.append(trial.text)
        if len(seen) == 2:
            raise died()
        return Unready("b", closed) if len(seen) == 1 else done(trial)

    told: list[str] = []
    ray = pretend(do, cluster={"a": node, "b": node})
    assert all(isinstance(end, TrialEnd) for end in ended(study(), told=told).values())
    assert seen == ["seed=0", "seed=1", "seed=1", "seed=0", "seed=2", "seed=3"]
    assert told == [f"a machine is passed over: {closed}"]
    # Another is started only where it can work.
    assert [one.get("label_selector") for one in ray.options_given] == [
        None, None, {"ray.io/node-id": "!in(b)"},
    ]  # fmt: skip


def test_a_lake_that_no_machine_can_open_ends_the_study(
    pretend: Callable[..., PretendedRay],
) -> None:
    closed = LakeError("The lake can't be opened from this machine", got="OSError")
    pretend(lambda _: Unready("n0", closed))
    with pytest.raises(LakeError, match="can't be opened from this machine"):
        ended(study())


def test_a_lake_that_is_away_for_a_moment_fails_one_trial_at_most(
    pretend: Callable[..., PretendedRay],
) -> None:
    closed = LakeError("The lake can't be opened from this machine", got="OSError")
    pretend(lambda trial: Unready("n0", closed) if trial.text == "seed=3" else done(trial))
    found = ended(study())
    assert [str(end) for end in found.values() if isinstance(end, RaywardError)] == [str(closed)]
