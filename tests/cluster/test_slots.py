"""How many processes fit a cluster, and how far it may grow."""

from typing import Any

import pytest

from cluster import slots
from cluster.slots import Growth, fitting, growth
from schemas.errors import UsageError


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[dict[str, float]],
    largest: dict[str, float] | None = None,
) -> None:
    class Pretended:
        def nodes(self) -> list[dict[str, Any]]:
            alive = [{"Alive": True, "Resources": one} for one in nodes]
            return [*alive, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]

        def get_max_resources_from_cluster_config(self) -> dict[str, float] | None:
            return largest

    monkeypatch.delenv("RAYWARD_SLOTS", raising=False)
    monkeypatch.setattr(slots, "ray", Pretended())
    monkeypatch.setattr(slots, "state", Pretended())


def test_processes_fit_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0}, {}])
    assert fitting(0) == 12
    assert fitting(1) == 1
    assert fitting(1 / 3) == 3, "a third of a GPU fits three times"
    assert fitting(2) == 0


def test_a_half_cpu_on_two_nodes_makes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [{"CPU": 1.5}, {"CPU": 1.5}])
    assert fitting(0) == 2


def test_how_far_a_cluster_may_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [])
    assert growth(0) == Growth(0)
    pretend(monkeypatch, [], {"CPU": 128, "GPU": 4})
    assert (growth(0), growth(0.5)) == (Growth(128), Growth(8))
    monkeypatch.setenv("RAYWARD_SLOTS", "40")
    assert growth(0.5) == Growth(40, is_stated=True)
    monkeypatch.setenv("RAYWARD_SLOTS", "many")
    with pytest.raises(UsageError, match="RAYWARD_SLOTS.*got many"):
        growth(0)
