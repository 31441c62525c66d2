"""The table of a benchmark run: on the terminal, as JSON, and in the README between markers."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Bar, Figure, Outcome, Row

_FIELDS = ("what", "value", "unit", "low", "high", "details", "note")
Machine = Mapping[str, Any]
"""What `benchmarks.machine.facts` says."""

OPENS, CLOSES = "<!-- bench -->", "<!-- /bench -->"


class MeasuredElsewhereError(Exception):
    """A row that was saved on another machine than this one."""


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print one line a figure."""
    table = Table(title="make bench", title_justify="left")
    for head in ("row", "what", "measured", "bar", ""):
        table.add_column(head, overflow="fold")
    for row in lines(outcomes):
        style = "red" if row[-1].startswith("failed") else "yellow" if row[-1] != "met" else None
        table.add_row(*row, style=style if row[-1] else None)
    console.print(table)
    if noted := commits(outcomes):
        console.print(noted)


def lines(outcomes: Sequence[Outcome]) -> list[tuple[str, str, str, str, str]]:
    """Row, what, measured (with its spread), bar, and whether it was met."""
    found = []
    for outcome in outcomes:
        name = outcome.row.name
        if outcome.failure is not None:
            reason = f"failed: {outcome.failure.splitlines()[0][:160]}"
            found.append((name, outcome.row.what, "-", outcome.row.bar, reason))
        found += [
            (name, one.what, _measured(one), str(one.bar or ""), _verdict(one))
            for one in outcome.figures
        ]
    return found


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The same table as Markdown."""
    head = ["| what | measured | bar | |", "|---|---|---|---|"]
    body = [f"| {' | '.join(line[1:])} |" for line in lines(outcomes)]
    noted = commits(outcomes)
    return "\n".join([*head, *body, *(["", noted] if noted else [])])


def commits(outcomes: Sequence[Outcome]) -> str:
    """Which rows were measured at which commit; nothing where they share one."""
    rows: dict[str, list[str]] = {}
    for outcome in outcomes:
        rows.setdefault(outcome.commit, []).append(outcome.row.name)
    if len(rows) < 2:
        return ""
    told = [f"{', '.join(names)} at {commit}" for commit, names in rows.items()]
    return f"Measured at several commits: {'; '.join(told)}."


def document(outcomes: Sequence[Outcome], machine: Machine, scale: float) -> dict[str, Any]:
    """Everything measured, as plain JSON values."""
    return {
        "machine": dict(machine),
        "scale": scale,
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
        "rows": [_row(outcome) for outcome in outcomes],
    }


def saved(folder: Path, row: Row, scale: float, machine: Machine) -> Outcome | None:
    """What an earlier call measured of a row at the same scale; nothing if it failed.

    Raises:
        MeasuredElsewhereError: if it was another machine, or had other versions.
    """
    path = folder / f"{row.name}.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    if found["scale"] != scale or found["failure"] is not None:
        return None
    if differing := _differences(found.get("machine", {}), machine):
        raise MeasuredElsewhereError(f"{row.name}: {'; '.join(differing)}")
    figures = []
    for one in found["figures"]:
        bar = one.pop("limit")
        known = {name: one[name] for name in _FIELDS}
        figures.append(Figure(**known, bar=None if bar is None else Bar(**bar)))
    told = {"commit": found["commit"], "load_before": found["load_before"]}
    return Outcome(row, figures, found["seconds"], **told)


def _differences(there: Machine, here: Machine) -> list[str]:
    """What is not the same, in words; the versions one by one."""
    pairs = {name: (there.get(name), one) for name, one in here.items() if name != "versions"}
    versions = there.get("versions", {})
    pairs |= {name: (versions.get(name), one) for name, one in here.get("versions", {}).items()}
    return [f"{name} {old}, here {new}" for name, (old, new) in pairs.items() if old != new]


def save(folder: Path, outcome: Outcome, scale: float, machine: Machine) -> None:
    """Keep what was measured of a row, and where, for a call that goes on."""
    told = {"scale": scale, "machine": dict(machine)} | _row(outcome)
    write_json(folder / f"{outcome.row.name}.json", told)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the document, sorted as it is, ending in a newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n")


def write_between_markers(path: Path, text: str) -> None:
    """Replace what stands between the markers of a file.

    Raises:
        ValueError: if the file has no such markers.
    """
    whole = path.read_text()
    pattern = re.compile(f"{re.escape(OPENS)}.*?{re.escape(CLOSES)}", re.DOTALL)
    if not pattern.search(whole):
        raise ValueError(f"{path.name} has no {OPENS} ... {CLOSES}; add the two lines")
    path.write_text(pattern.sub(lambda _: f"{OPENS}\n{text}\n{CLOSES}", whole, count=1))


def _measured(one: Figure) -> str:
    spread = ""
    if one.low is not None and one.high is not None and one.low != one.high:
        spread = f" ({_number(one.low)}-{_number(one.high)})"
    return f"{_number(one.value)} {one.unit}{spread}"


def _verdict(one: Figure) -> str:
    if one.bar is None:
        return one.note
    if one.short_by is None:
        return "met"
    factor = f"short by {one.short_by:.2f} x"
    return f"{factor}: {one.note}" if one.note else factor


def _number(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.row.name,
        "what": outcome.row.what,
        "bar": outcome.row.bar,
        "commit": outcome.commit,
        "load_before": outcome.load_before,
        "seconds": round(outcome.seconds, 1),
        "failure": outcome.failure,
        "figures": [_plain(one) for one in outcome.figures],
    }


def _plain(one: Figure) -> dict[str, Any]:
    return {
        "what": one.what,
        "value": one.value,
        "unit": one.unit,
        "low": one.low,
        "high": one.high,
        "bar": None if one.bar is None else str(one.bar),
        "limit": None if one.bar is None else asdict(one.bar),
        "met": one.met,
        "short_by": one.short_by,
        "note": one.note,
        "details": one.details,
    }


def _rounded(value: Any) -> Any:
    """Floats to five digits: the rest is noise, and differences of the file stay readable."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
