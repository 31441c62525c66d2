"""Kinds of jobs and a Ray that only pretend, for the tests of studies."""

from collections.abc import Callable
from typing import Any

import pytest

from cluster.studies import crew, planning, process
from schemas.protocols import Report
from schemas.specs import JobSpec
from tests.cluster.studies.pretended import Do, Kinds, PretendedRay, done


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PretendedRay]:
    def make(do: Do = done, **given: Any) -> PretendedRay:
        found = PretendedRay(do, **given)
        monkeypatch.setattr(crew, "ray", found)
        return found

    return make


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kinds]:
    def install(run: Callable[[JobSpec], Report], open_jobs: set[str]) -> Kinds:
        found = Kinds(run, open_jobs)
        monkeypatch.setattr(process, "KINDS", found)
        monkeypatch.setattr(planning, "KINDS", found)
        monkeypatch.setattr(process, "_PAUSE_S", 0.0)
        return found

    return install
