"""What is shown of trials while they run, and a board that is lost."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError

from cluster import train_order
from cluster.studies.process import TrialNews
from cluster.studies.watching import Watch
from cluster.train_order import Board, BoardLink, TrainOrder
from tests.cluster.studies.pretended import QuietBoard


def figures(epoch: int, auc: float) -> Mapping[str, float]:
    return {"epoch": float(epoch), "loss": 0.25, "auc": auc}


def test_epochs_are_told_now_and_then_with_the_best_so_far() -> None:
    board, told, now = QuietBoard(), list[str](), {"s": 0.0}
    link: Any = board
    watch = Watch(link, told.append, lambda: now["s"])

    def note(at_s: float, *noted: Any) -> None:
        now["s"] = at_s
        board.noted += noted
        watch.look()

    note(0, TrialNews("seed=0", figures(0, 0.9), 14), TrialNews("seed=1", figures(0, 0.1), 14))
    note(19, TrialNews("seed=0", figures(1, 0.8), 14))
    assert told == []
    note(20, TrialNews("seed=0", figures(2, 0.7), 14))
    note(21, TrialNews("seed=0", figures(3, 0.99), 14))
    assert told == ["seed=0: epoch 3 of 14: loss 0.25, auc 0.7, best auc 0.9"]
    note(22, TrialNews("seed=1", "waits for another"), TrialNews("seed=1", figures(1, 0.3), 14))
    note(41, TrialNews("seed=0", figures(4, 0.5), 14))
    watch.forget("seed=0")
    note(99, TrialNews("seed=0", figures(0, 0.2), 14))  # a trial of that name begins again
    assert told[1:] == [
        "seed=1: waits for another",
        "seed=1: epoch 2 of 14: loss 0.25, auc 0.3, best auc 0.3",
        "seed=0: epoch 5 of 14: loss 0.25, auc 0.5, best auc 0.99",
    ]


class PretendedBoard:
    """A board in this process behind the calls that Ray would carry."""

    def __init__(self) -> None:
        real = Board()

        class Call:
            def __init__(self, method: Any) -> None:
                self.remote = lambda argument: lambda: method(argument)

        self.note, self.since = Call(real.note), Call(real.since)


class PretendedRay:
    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.asked = 0

    def get(self, future: Any, timeout: float) -> Any:
        self.asked += 1
        assert timeout > 0
        if self.fails:
            raise self.fails
        return future()

    def put(self, _: Any) -> None:
        raise AssertionError


@pytest.mark.parametrize("error", [ActorDiedError(), GetTimeoutError("patient 12345")])
def test_a_board_that_is_lost_ends_no_training_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    ray = PretendedRay()
    monkeypatch.setattr(train_order, "ray", ray)
    board: Any = PretendedBoard()
    writer, reader = BoardLink(board), BoardLink(board)
    order = TrainOrder("lake", "r", None, {}, 1, writer)
    order.note(figures(0, 0.5))
    order.note("the disk is nearly full")
    assert reader.fresh() == [figures(0, 0.5), "the disk is nearly full"]
    order.note(figures(1, 0.5))
    assert reader.fresh() == [figures(1, 0.5)] and reader.fresh() == []
    ray.fails = error
    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            order.note(figures(epoch, 0.5))
            assert reader.fresh() == []
    said = "progress can't be shown any more, work goes on"
    assert [one.getMessage() for one in caplog.records] == [
        f"{said}: {type(error).__name__}"
    ] * 2  # once by each side
    assert ray.asked == 8  # and it is not waited for again
