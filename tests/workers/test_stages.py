"""Seconds by stage: each counted once, whoever is inside whom, on whichever thread."""

import threading

import numpy as np
import pytest

from schemas.plan import PreparedPixels
from workers.pixels.encoding import encode
from workers.prefetch import ahead
from workers.reading import FrameReader
from workers.scoring.forward import Batched, Outputs, Pixels
from workers.stages import Stage, Stages, Whereabouts, during


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_a_stage_within_another_takes_its_seconds() -> None:
    clock = Clock()
    stages = Stages(clock)
    with stages.current(), stages.during(Stage.COMPUTE):
        clock.now_s += 1
        for _ in range(2):
            with during(Stage.DECODE):
                clock.now_s += 3
                with during(Stage.NETWORK):
                    clock.now_s += 10
            clock.now_s += 0.5
    assert stages.seconds == {Stage.COMPUTE: 2.0, Stage.DECODE: 6.0, Stage.NETWORK: 20.0}


def test_an_exception_ends_its_stage() -> None:
    clock = Clock()
    stages = Stages(clock)

    def broken() -> None:
        with stages.during(Stage.DECODE):
            clock.now_s += 2
            raise ValueError("x")

    with stages.during(Stage.COMPUTE):
        with pytest.raises(ValueError, match="x"):
            broken()
        assert stages.where() == Whereabouts(Stage.COMPUTE, 0.0)
    assert stages.seconds == {Stage.DECODE: 2.0, Stage.COMPUTE: 0.0}


def test_where_a_process_is_and_for_how_long() -> None:
    clock = Clock()
    stages = Stages(clock)
    clock.now_s += 4
    assert stages.where() == Whereabouts(None, 4.0)
    with stages.during(Stage.COMPUTE), stages.during(Stage.DECODE):
        clock.now_s += 7
        assert stages.where() == Whereabouts(Stage.DECODE, 7.0)


def test_a_thread_that_works_ahead_counts_for_the_same_shard() -> None:
    stages = Stages()
    inside, seen = threading.Event(), []

    def produce() -> "list[int]":
        with during(Stage.DECODE):
            inside.set()
            return [1]

    def lazily():  # type: ignore[no-untyped-def]
        yield from produce()

    with stages.current(), stages.during(Stage.COMPUTE):
        for one in ahead(lazily(), 1):
            seen.append(one)
    assert inside.is_set() and seen == [1]
    assert set(stages.seconds) == {Stage.COMPUTE, Stage.DECODE}


def test_nobody_counts_outside_a_shard() -> None:
    with during(Stage.DECODE):
        pass
    stages = Stages()
    with stages.current():
        pass
    with during(Stage.DECODE):
        pass
    assert stages.seconds == {}


class Network:
    batch = 2

    def __call__(self, pixels_BCHW: Pixels) -> Outputs:
        return np.zeros((len(pixels_BCHW), 1), np.float32)


def test_decoding_and_passes_are_told_apart() -> None:
    view = np.zeros((4, 4), np.uint8)
    blob = PreparedPixels(encode(view), 4, 4)
    stages = Stages()
    with stages.current():
        read = FrameReader().read(blob, 0, lambda pixels: pixels.array.shape)
        assert set(stages.seconds) == {Stage.DECODE}
        Batched(lambda batch: Network(), 2).outputs(np.zeros((3, 1, 4, 4), np.uint8))
    assert read == (4, 4)
    assert set(stages.seconds) == {Stage.DECODE, Stage.NETWORK}
