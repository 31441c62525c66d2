"""`query`, `tables`, `export`: reading the lake."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import JsonOption, LakeOption, lake_root
from cluster.cli.output import print_json, say

FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="table, csv, json or parquet. [default: what --output ends in, or table]",
        show_default=False,
    ),
]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="TIME",
        help="The lake as it stood then: 2026-11-20, 2026-11-20T08:00 (UTC), or with an offset.",
    ),
]


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One query; - reads it from stdin.")],
    form: FormatOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file.")
    ] = None,
    as_of: AsOfOption = None,
    lake: LakeOption = None,
) -> None:
    """Query the lake with SQL, read-only.

    The dialect is DuckDB's; tables and views are known by name (`rayward tables`).

    Example: rayward query "SELECT label, count(*) FROM kept_images GROUP BY 1"
    """
    from cluster.cli.formats import chosen_format, write_rows
    from cluster.query import open_query

    chosen = chosen_format(form, output)
    reader = open_query(lake_root(lake), as_of=_time(as_of))
    write_rows(reader.query(sys.stdin.read() if sql == "-" else sql), chosen, output)


def tables(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show the columns of one.")
    ] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tables and views, or the columns of one.

    Example: rayward tables predictions
    """
    from cluster.query import open_query
    from cluster.render import console, grid

    reader = open_query(lake_root(lake))
    if name is None:
        listed = reader.tables()
        if as_json:
            for one in listed:
                print_json(asdict(one))
            return
        headers = ("name", "kind", "rows", "one row is")
        rows = [(one.name, one.kind, f"{one.rows:,}", one.description) for one in listed]
        console(sys.stdout).print(grid(headers, rows, right=(2,)))
        return
    columns = reader.columns(name)
    if as_json:
        for column in columns:
            print_json(asdict(column))
        return
    cells = [(one.name, one.type, one.unit, one.description) for one in columns]
    console(sys.stdout).print(grid(("column", "type", "unit", "meaning"), cells, right=()))


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or new directory.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Tables and views; all when not given."),
    ] = None,
    as_of: AsOfOption = None,
    lake: LakeOption = None,
) -> None:
    """Write tables as plain Parquet files.

    For tools that read directories: the lake itself is read through its log only.

    Example: rayward export snapshot images predictions
    """
    from cluster.query import open_query

    written = open_query(lake_root(lake), as_of=_time(as_of)).export(directory, names or ())
    for name, rows in written.items():
        say(f"{name}: {rows:,} rows")


def _time(text: str | None) -> datetime | None:
    """A time as the user wrote it; UTC where no offset is given.

    Raises:
        UsageError: if it is none.
    """
    from schemas.errors import UsageError

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            "This is no time",
            where="--as-of",
            got=text,
            remedy="write 2026-11-20, 2026-11-20T08:00 or 2026-11-20T08:00+01:00",
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
