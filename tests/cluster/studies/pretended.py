"""A Ray that only pretends: it makes a study's trials in this process when they are waited for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from ray.exceptions import RayTaskError

from cluster import kinds
from cluster.studies.process import TrialEnd, Unready, Workplace
from cluster.studies.watching import Watch
from schemas.errors import SplitError
from schemas.plan import Plan
from schemas.protocols import Report
from schemas.specs import JobSpec
from schemas.specs.study import StudySpec
from schemas.studies import Trial

Do = Callable[[Trial], TrialEnd | Unready]


class QuietBoard:
    """Stands in for the way to a board; holds what is read next."""

    def __init__(self) -> None:
        self.noted: list[Any] = []

    def note(self, noted: Any) -> None:
        self.noted.append(noted)

    def fresh(self) -> list[Any]:
        taken, self.noted = self.noted, []
        return taken

    def remove(self) -> None:
        pass


@dataclass
class PretendedRay:
    """Makes trials in this process when they are waited for."""

    do: Do
    resources: dict[str, float] = field(default_factory=lambda: {"CPU": 2.0})
    """Of the only node, ``n0``; or see `cluster`."""
    cluster: dict[str, dict[str, float]] = field(default_factory=dict)
    """Resources of each node."""
    options_given: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    """Hirings, kills, and beginnings of trials in their order."""
    most_at_once: int = 0

    @property
    def hired(self) -> int:
        return sum(event.startswith("hire") for event in self.events)

    @property
    def killed(self) -> int:
        return sum(event.startswith("kill") for event in self.events)

    def nodes(self) -> list[dict[str, Any]]:
        there = self.cluster or {"n0": self.resources}
        return [{"NodeID": name, "Alive": True, "Resources": one} for name, one in there.items()]

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
            def __init__(self, name: str) -> None:
                self.name = name

            def remote(self, trial: Trial) -> Callable[[], TrialEnd | Unready]:
                outer.events.append(f"give {self.name} {trial.text}")
                return lambda: outer.do(trial)

        class Actor:
            def __init__(self) -> None:
                self.name = f"p{outer.hired}"
                self.run = Method(self.name)

            @staticmethod
            def remote(*_: object) -> "Actor":
                actor = Actor()
                outer.events.append(f"hire {actor.name}")
                return actor

        return Actor

    def wait(
        self, futures: list[Any], num_returns: int, timeout: float
    ) -> tuple[list[Any], list[Any]]:
        assert num_returns == 1 and timeout > 0  # without one a lost node would go unnoticed
        self.most_at_once = max(self.most_at_once, len(futures))
        return futures[:1], futures[1:]

    def get(self, future: Callable[[], Any]) -> Any:
        return future()

    def kill(self, actor: Any) -> None:
        self.events.append(f"kill {actor.name}")


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("run", "traceback", cause)


def study(**fields: Any) -> StudySpec:
    given = {"name": "s", "train": {"dataset": "d", "split": "p"}, "grid": {"seed": [0, 1, 2, 3]}}
    return StudySpec.model_validate(given | fields)


def done(_trial: Trial) -> TrialEnd:
    return TrialEnd(1.0, 3, {"val auc": 0.91234, "model": "x"})


def workplace(lake: str = "lake", **fields: Any) -> Workplace:
    board: Any = QuietBoard()
    return Workplace(lake, "s", board, **fields)


def watch(told: list[str] | None = None) -> Watch:
    board: Any = QuietBoard()
    return Watch(board, (told if told is not None else []).append)


class Kinds:
    """Stands in for the kinds a trial is made of."""

    def __init__(self, run: Callable[[JobSpec], Report], open_jobs: set[str]) -> None:
        self._run, self.open = run, open_jobs

    def __getitem__(self, kind: str) -> kinds.Kind:
        def plan(job: JobSpec, _store: object) -> Plan:
            if "missing" in self.open:
                raise SplitError("The split has no folds")
            rows = [job.name] if f"{kind} {job.name}" in self.open else []
            return Plan(kind, job.name, (kind,), {}, {}, pa.table({"x": rows}), ())

        def run(job: JobSpec, _pool: object, _store: object) -> Report:
            return self._run(job)

        return kinds.Kind(plan, run)
