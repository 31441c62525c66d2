"""The commands by name, and how errors end a command."""

import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from cluster.cli.checks import doctor, schema
from cluster.cli.coco import coco
from cluster.cli.maintenance import maintain
from cluster.cli.models import models
from cluster.cli.queries import export, query, tables
from cluster.cli.remote import jobs, logs, stop
from cluster.cli.reporting import report
from cluster.cli.running import plan, run
from cluster.cli.runs import discard, publish, status
from cluster.cli.submitting import submit
from cluster.watching.logs import (
    VARIABLE,
    LogFormat,
    configure_logs,
    log_format,
    log_line,
    wants_json,
)

app = typer.Typer(
    name="rayward",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    run, plan, submit, jobs, logs, stop, report, status, publish, discard, maintain, query,
    tables, export, coco, models, schema, doctor,
):  # fmt: skip
    app.command()(_command)

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("rayward"))
        raise typer.Exit


def _set_log_format(form: LogFormat | None) -> None:
    if form is not None:
        os.environ[VARIABLE] = form
    log_format()  # what the environment says must be one too
    configure_logs()


@app.callback()
def rayward(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
    form: Annotated[
        LogFormat | None,
        typer.Option(
            "--log-format",
            help="What is said on stderr: text, or one JSON object a line. "
            "[default: $RAYWARD_LOG, or text]",
            show_default=False,
            callback=_set_log_format,
        ),
    ] = None,
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
    from cluster.foreign import told
    from schemas.errors import JobFileError, RaywardError
    from schemas.masking import masked

    text = _COLOUR.sub("", masked(str(error)))  # Ray colours what it quotes
    if isinstance(error, JobFileError):
        text = f"{text}\n{masked(error.what)}"
    elif isinstance(error, RaywardError):
        text = f"error: {text}"
    else:
        text = (  # without its message, which may quote paths or contents of files
            f"error: {told(error)}\n"
            "This was not foreseen. RAYWARD_TRACEBACK=1 shows where it came from."
        )
    in_json = log_line(text.removeprefix("error: "), level="error") if wants_json() else text
    print(in_json, file=sys.stderr)
    return error.exit_code if isinstance(error, RaywardError) else 1
