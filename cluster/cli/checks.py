"""`schema` and `doctor`: what a job may say, and whether it could run here."""

import json
import sys
from typing import Annotated

import typer

from cluster.cli.options import JsonOption, LakeOption, lake_root
from cluster.cli.output import print_json, say

_EDITOR_HINT = (
    "Editors that speak the YAML language server use it with this first line in a job file:\n"
    "  # yaml-language-server: $schema=rayward.schema.json"
)


def schema(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="A kind of job; the whole job file when not given."),
    ] = None,
) -> None:
    """Print the JSON schema of a kind or of job files.

    Example: rayward schema > rayward.schema.json
    """
    from schemas.errors import UsageError
    from schemas.jobschema import job_file_schema, kind_schema
    from schemas.jobtree import hint
    from schemas.specs import SPECS

    if kind is None:
        print(json.dumps(job_file_schema(), indent=2))
        say(_EDITOR_HINT)
        return
    if kind not in SPECS:
        raise UsageError(
            f"There is no such kind of job{hint(kind, SPECS)}",
            got=kind,
            remedy=f"kinds: {', '.join(SPECS)}",
        )
    print(json.dumps(kind_schema(kind), indent=2))


def doctor(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Check the installation, the machine and the lake.

    Exits 1 if runs would fail.

    Example: rayward doctor --lake s3://bucket/lake
    """
    from cluster.doctor import State, examine
    from cluster.render import console, printable_lines
    from workers.pseudonyms import key_file

    failed = False
    out = console(sys.stdout)
    for check in examine(lake_root(lake), key_file()):
        failed = failed or check.state is State.FAIL
        if as_json:
            print_json(check.to_dict())
            continue
        lines = [f"{check.state.value:<5} {check.name}: {check.detail}"]
        if check.remedy:
            lines.append(f"    {check.remedy}")
        out.print(printable_lines(lines), soft_wrap=True)
    raise typer.Exit(1 if failed else 0)
