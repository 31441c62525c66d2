"""Run the rows of the benchmark: `python -m benchmarks [--only NAME ...] [--scale 0.1]`."""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import (
    cleaning,
    corpus,
    detecting,
    duplicates,
    interrupted,
    nodes,
    planning,
    planning_s3,
    scoring,
    startup,
    training,
)
from benchmarks.harness import Context, Outcome, Row, run_row, usable_cores
from benchmarks.machine import commit, facts, load
from benchmarks.output import (
    MeasuredElsewhereError,
    document,
    markdown,
    save,
    saved,
    show,
    write_between_markers,
    write_json,
)
from benchmarks.processes import ROOT
from workers.pseudonyms import KEY_FILE_VARIABLE

OUT = ROOT / "build" / "bench"
KEPT = OUT / "rows"
"""What was measured last, row by row."""

ROWS: tuple[Row, ...] = (
    Row(
        "first-shard",
        "time from command to first shard done, against Ray's own start-up",
        "2 x",
        startup.measure,
        minutes=1,
    ),
    Row(
        "planning",
        "planning a night with nothing new, 84,000 and 1,000,000 catalogued rows",
        "2 s and 5 s beyond start-up, 200 MB more",
        planning.measure,
        minutes=5,
    ),
    Row(
        "planning-s3",
        "the same over a lake on S3 (moto on this machine), and listing an archive there",
        "2 s and 5 s beyond start-up, 200 MB more",
        planning_s3.measure,
        minutes=4,
    ),
    Row(
        "duplicates",
        "near-duplicate pairs, exact, among 84,000 and 1,000,000 hashes",
        "1 s and 60 s",
        duplicates.measure,
        minutes=2,
    ),
    Row(
        "interrupted",
        "a run killed half-way and started again, no row lost or doubled",
        "0.55 of a whole run",
        interrupted.measure,
        minutes=3,
    ),
    Row(
        "clean",
        "clean against a bare loop doing the same, and against Ray Data with imagehash",
        "0.95; 3 x",
        cleaning.measure,
        minutes=4,
    ),
    Row(
        "score",
        "score from prepared pixels against forward passes alone, and against eager float32",
        "0.95; 1.8 x",
        scoring.measure,
        minutes=4,
    ),
    Row(
        "detect",
        "score with detectors against forward passes alone, and reading boxes from their maps",
        "0.95; 10 %",
        detecting.measure,
        minutes=5,
    ),
    Row(
        "train",
        "Ray Train against torchrun with the same loop and workers",
        "0.95",
        training.measure,
        minutes=6,
    ),
    Row(
        "nodes",
        "two nodes of one CPU against one",
        "1.8 x",
        nodes.measure,
        minutes=3,
    ),
    Row(
        "corpus",
        "84,000 phantoms through every step, then a night with 1 % new",
        "200 MB more than a tenth; 1.3 % of the cost",
        corpus.measure,
        minutes=10,
    ),
)
"""The table of rows, in the order they are measured and shown."""


def main() -> int:
    """Measure, show and write; returns the exit code (1: a row failed)."""
    options = _options()
    if options.list:
        for row in ROWS:
            print(f"{row.name:<16} {row.minutes:>4g} min  {row.what}; bar: {row.bar}")
        return 0
    if options.write and (options.scale != 1 or set(options.only) != {row.name for row in ROWS}):
        print("--write takes every row at full size: leave --only and --scale out", file=sys.stderr)
        return 2
    console = Console(stderr=True, highlight=False)
    work = Path(options.keep or tempfile.mkdtemp(prefix="rayward-bench-")).resolve()
    # The user's own key and cluster have no part in this.
    os.environ[KEY_FILE_VARIABLE] = str(work / "pseudonym.key")
    os.environ.pop("RAY_ADDRESS", None)
    try:
        outcomes = _measure(work, options, console)
    except MeasuredElsewhereError as error:
        print(f"An earlier call measured a row elsewhere. {error}", file=sys.stderr)
        print("Measure it again with --only, or leave --resume out.", file=sys.stderr)
        return 2
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    show(outcomes, Console(width=max(Console().width, 120)))
    _write(outcomes, options)
    return int(any(outcome.failure for outcome in outcomes))


def _measure(work: Path, options: argparse.Namespace, console: Console) -> list[Outcome]:
    """Measure the rows asked for; with ``--resume``, those that an earlier call has not.

    Raises:
        MeasuredElsewhereError: before anything is measured, if that was another machine.
    """
    machine, code = facts(usable_cores()), commit()
    found = {row.name: saved(KEPT, row, options.scale, machine) for row in ROWS if options.resume}
    outcomes = []
    for row in ROWS:
        if earlier := found.get(row.name):
            outcomes.append(earlier)
            continue
        if row.name not in options.only:
            continue
        console.print(f"[bold]{row.name}[/]: {row.what} (about {row.minutes:g} min)")
        context = Context(
            directory=work / row.name,
            shared=work / "shared",
            scale=options.scale,
            rounds=options.rounds,
            cores=usable_cores(),
            say=lambda text: console.print(f"  {text}"),
        )
        before = load()
        outcome = replace(run_row(row, context), commit=code, load_before=before)
        outcomes.append(outcome)
        save(KEPT, outcome, options.scale, machine)
        console.print(f"  took {outcomes[-1].seconds:.0f} s")
    return outcomes


def _write(outcomes: Sequence[Outcome], options: argparse.Namespace) -> None:
    content = document(outcomes, facts(usable_cores()), options.scale)
    write_json(OUT / "bench.json", content)
    (OUT / "bench.md").write_text(markdown(outcomes) + "\n")
    if options.write:
        write_json(ROOT / "docs" / "bench.json", content)
        write_between_markers(ROOT / "README.md", markdown(outcomes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=names)
    parser.add_argument("--list", action="store_true", help="name the rows and measure nothing")
    parser.add_argument(
        "--resume", action="store_true", help="take rows that an earlier call measured as they are"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of paired runs")
    parser.add_argument("--keep", metavar="DIR", help="work in DIR and leave everything there")
    parser.add_argument(
        "--write", action="store_true", help="also write README.md's table and docs/bench.json"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
