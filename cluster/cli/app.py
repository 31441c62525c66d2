"""The commands by name, and how errors end a command."""

import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from cluster.cli.checks import doctor, schema
from cluster.cli.maintenance import maintain
from cluster.cli.models import models
from cluster.cli.queries import export, query, tables
from cluster.cli.reporting import report
from cluster.cli.running import plan, run
from cluster.cli.runs import discard, publish, status
from cluster.cli.submitting import jobs, logs, stop, submit

app = typer.Typer(
    name="rayward",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    run, plan, submit, jobs, logs, stop, report, status, publish, discard, maintain, query,
    tables, export, models, schema, doctor,
):  # fmt: skip
    app.command()(_command)

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("rayward"))
        raise typer.Exit


@app.callback()
def rayward(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Catalogue, clean, train on and score medical images; query the results."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code.

    Errors are told in a line or two on stderr; RAYWARD_TRACEBACK=1 shows where they came from.
    """
    try:
        app(args=arguments)
    except Exception as error:  # the last resort of every command
        if os.environ.get("RAYWARD_TRACEBACK") == "1":
            raise
        sys.exit(_tell(error))


def _tell(error: Exception) -> int:
    from schemas.errors import JobFileError, RaywardError
    from schemas.masking import masked

    text = _COLOUR.sub("", masked(str(error)))  # Ray colours what it quotes
    if isinstance(error, JobFileError):
        text = f"{text}\n{masked(error.what)}"
    elif isinstance(error, RaywardError):
        text = f"error: {text}"
    else:
        text = (
            f"error: {type(error).__name__}: {text}\n"
            "This was not foreseen. RAYWARD_TRACEBACK=1 shows where it came from."
        )
    print(text, file=sys.stderr)
    return error.exit_code if isinstance(error, RaywardError) else 1
