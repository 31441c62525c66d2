"""What a run cost, as its report shows it."""

from cluster.render import report_text
from schemas.plan import Counts
from schemas.protocols import Report

GPU = {
    "cpu_s": 12.0, "gpu_s": 4.5, "cpu_s_per_thousand": 3.0, "gpu_s_per_thousand": 1.125,
}  # fmt: skip


def shown(cost: dict[str, float], done: int = 4000) -> str:
    return report_text(Report("score", "night", "published", counts=Counts(done), cost=cost), 0.05)


def test_the_cost_is_told_in_all_and_a_thousand() -> None:
    last = shown(GPU).splitlines()[-1].strip()
    assert last == (
        "cost 12 CPU seconds (3 a thousand images), 4.5 GPU seconds (1.12 a thousand images)"
    )


def test_what_took_no_gpu_is_told_without() -> None:
    assert "GPU" not in shown(GPU | {"gpu_s": 0.0, "gpu_s_per_thousand": 0.0})


def test_without_a_measurement_nothing_is_told() -> None:
    assert "cost" not in shown({})


def test_without_inputs_there_is_no_share() -> None:
    assert "thousand" not in shown({"cpu_s": 2.0, "gpu_s": 0.0}, done=0)
