"""What people see in a terminal: reports of jobs, tables of rows, findings."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.progress import duration
from schemas.protocols import Report

_PIPE_WIDTH = 10_000
"""Columns of a stream that is no terminal: nothing is cut or wrapped on its way to a file."""

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)


def console(stream: TextIO) -> Console:
    """A console that never guesses: no markup, no highlighting, no emoji."""
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def printable(value: object) -> str:
    """A value as text that can't steer a terminal; values come from archives."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def grid(headers: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int]) -> Table:
    """A table of cells; the columns numbered in ``right`` are aligned to the right."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(printable(header), justify="right" if place in right else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def arrow_grid(rows: pa.Table, limit: int) -> Table:
    """The first ``limit`` rows of an Arrow table."""
    shown = rows.slice(0, limit)
    columns = [[_cell(value) for value in column.to_pylist()] for column in shown.columns]
    right = [
        place
        for place, column in enumerate(rows.schema.types)
        if any(is_number(column) for is_number in _NUMBERS)
    ]
    return grid(rows.schema.names, zip(*columns, strict=True), right)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    return str(value)


def report_text(report: Report, max_reject_share: float) -> str:
    """What became of a job, in a few lines."""
    title = report.kind if report.name == report.kind else f"{report.name} ({report.kind})"
    lines = [f"{title}: {_verdict(report)}"]
    if report.counts.input:
        outcomes = _outcomes(report)
        lines.append(f"{report.counts.input:,} {report.unit}: {outcomes}")
    # A label that begins with an underscore is a note from one run to the next.
    facts = {name: value for name, value in report.facts.items() if not name.startswith("_")}
    if facts:
        lines.append("; ".join(f"{_words(name)} {_fact(value)}" for name, value in facts.items()))
    lines += [f"failed: {name}: {why}" for name, why in report.failures.items()]
    if _stages(report.seconds):
        lines.append(_stages(report.seconds))
    if any(report.cost.values()):
        lines.append(_cost(report))
    if report.reject_share > max_reject_share and not report.failures:
        lines.append(
            f"rejects are {report.reject_share:.1%}, above max_reject_share {max_reject_share:.1%}:"
            f' rayward query "SELECT reason, count(*) FROM rejects'
            f" WHERE run_id = '{report.run_id}' GROUP BY reason\""
        )
    if report.status == "held":
        lines.append(f"decide with: rayward publish {report.run_id}, or rayward discard")
    return printable_lines(lines)


def printable_lines(lines: Sequence[str]) -> str:
    """Lines of which all but the first are indented."""
    return "\n  ".join(printable(line) for line in lines)


def _verdict(report: Report) -> str:
    total = duration(sum(report.seconds.values()))
    counts = report.counts
    if report.status == "up_to_date":
        why = "everything is up to date" if counts.input == counts.up_to_date else "nothing is new"
        if not counts.input:
            why = f"there are no {report.unit}"
        return f"nothing to do, {why} ({total})"
    if report.status == "planned":
        return f"would work on {counts.done:,} {report.unit}"
    if report.status == "waiting":
        return "waits"
    run = f", run {report.run_id}" if report.run_id else ""
    return f"{report.status} in {total}{_rate(report)}{run}"


def _rate(report: Report) -> str:
    seconds = report.seconds.get("shards", 0.0)
    worked = report.counts.done + report.counts.rejected
    return f", {worked / seconds:,.0f} {report.unit}/s" if seconds > 0 and worked else ""


def _outcomes(report: Report) -> str:
    named = [(name, n) for name, n in report.counts.to_dict().items() if name != "input" and n]
    words = {"done": "to do"} if report.status == "planned" else {}
    if report.failures:
        words["rejected"] = "failed"
    return ", ".join(f"{n:,} {words.get(name, _words(name))}" for name, n in named)


def _stages(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{_words(stage)} {duration(s)}" for stage, s in seconds.items() if s >= 0.05)


def _cost(report: Report) -> str:
    """Seconds of processors, those of GPUs where there were any, and each a thousand inputs."""
    parts = []
    for name, label in (("cpu_s", "CPU"), ("gpu_s", "GPU")):
        seconds, each = report.cost[name], report.cost.get(f"{name}_per_thousand")
        if seconds:
            share = f" ({each:,.3g} a thousand {report.unit})" if each is not None else ""
            parts.append(f"{seconds:,.3g} {label} seconds{share}")
    return f"cost {', '.join(parts)}"


def _fact(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
