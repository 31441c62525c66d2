"""Progress: rates, what is left, and where it is shown."""

import io

import pytest

from cluster.progress import Pace, Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_what_earlier_drivers_did_counts_for_the_share_but_not_for_the_rate() -> None:
    pace = Pace(1000, "images", settled=500, started_s=10.0)
    pace.advance(40, 10, now_s=13.0)
    # One end alone tells of the start-up before it, not of what is to come.
    assert " left" not in str(pace)
    pace.advance(50, 0, now_s=14.0)
    assert pace.ended == 600
    assert pace.rate == 25.0
    assert str(pace) == ("600 of 1,000 images (60%), 25 images/s, 10 rejected, 16 s left")


def test_the_rate_forgets_what_is_long_past() -> None:
    pace = Pace(10_000, "files", settled=0, started_s=0.0)
    pace.advance(10, 0, now_s=100.0)
    assert pace.rate == pytest.approx(0.1)
    for second in range(101, 200):
        pace.advance(5, 0, now_s=float(second))
    assert pace.rate == pytest.approx(5.0)


def test_a_pace_without_news() -> None:
    assert str(Pace(0, "images", 0, 0.0)) == "0 of 0 images (100%)"
    assert str(Pace(5, "images", 0, 0.0)) == "0 of 5 images (0%)"
    pace = Pace(5, "images", 0, 1.0)
    pace.advance(1, 0, now_s=1.0)
    assert pace.rate == 0.0


def test_lines_come_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock=clock, every_s=10)
    progress.start("clean", 100, "images")
    for _ in range(25):
        clock.now_s += 1
        progress.advance(1)
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "clean: 10 of 100 images (10%), 1.0 images/s, 1 min 30 s left",
        "clean: 20 of 100 images (20%), 1.0 images/s, 1 min 20 s left",
    ]


def test_without_news_lines_are_rare() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock=clock, every_s=10)
    progress.start("train", 100, "images", settled=5)
    for _ in range(65):
        clock.now_s += 1
        progress.advance(0)
    progress.finish()
    assert stream.getvalue() == "train: 5 of 100 images (5%)\n"


def test_a_quiet_progress_says_nothing() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, quiet=True, clock=clock, every_s=0)
    progress.start("clean", 100, "images")
    progress.advance(50, 1)
    progress.note("epoch 1")
    progress.finish()
    assert stream.getvalue() == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_gets_a_bar(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress(stream, quiet=quiet, clock=clock)
    progress.start("clean", 100, "images", settled=10)
    clock.now_s += 1
    progress.advance(10, 1)
    clock.now_s += 1
    progress.advance(20, 3)
    progress.note("[bold]epoch 1[/bold]")
    print("stays on stdout")
    progress.finish()
    assert "44 of 100 images (44%), 17 images/s, 4 rejected, 3.3 s left" in stream.getvalue()
    assert "clean: [bold]epoch 1[/bold]" in stream.getvalue()
    assert capsys.readouterr().out == "stays on stdout\n"


def test_calls_out_of_order_are_harmless() -> None:
    progress = Progress(io.StringIO())
    progress.advance(1)
    progress.finish()
    progress.start("a", 1, "images")
    progress.start("b", 1, "images")
    progress.finish()
    progress.finish()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"), (7500, "2 h 5 min"),
    ],
)  # fmt: skip
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
